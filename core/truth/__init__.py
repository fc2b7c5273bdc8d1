"""Strokes become truth: what a person vouched for, as a partial label map with a hold-out."""
