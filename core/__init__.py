"""The learning core: partial labels, training, uncertainty and regions, on numpy and torch alone."""
