"""The network: its layers, its weights, and what it says about an image."""
