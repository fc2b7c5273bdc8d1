"""`brushloop simulate`: an offline study with a simulated annotator, on images whose truth is known."""
