"""Review rounds: which tasks a new model scores, and in which order people see them."""
