"""A training round: from annotated pixels to a checked model and its report."""
