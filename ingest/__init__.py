"""Files of cameras, microscopes and scanners as pictures to annotate, and masks of other tools as objects."""
