"""Objects as connected components: found, measured, cut apart and cleaned."""
