"""Strokes on their way in: recorded, reconciled with Label Studio, built into label maps."""
