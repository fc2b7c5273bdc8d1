"""The command `brushloop` and what it starts."""
