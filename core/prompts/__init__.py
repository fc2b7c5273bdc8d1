"""One object from a click, a box or a rough stroke: with a model, or from the pixels alone."""
