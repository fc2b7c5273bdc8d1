"""HTTP: Label Studio's calls, the JSON interface, metrics and a page for people."""
