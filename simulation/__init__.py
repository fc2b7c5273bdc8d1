"""A simulated annotator, and studies of what annotation costs with it."""
