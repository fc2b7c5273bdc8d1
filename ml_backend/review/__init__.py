"""Review rounds: which tasks a new model looks at, and in which order people see them."""
