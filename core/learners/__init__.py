"""Learners beside the network: the features of single pixels, and a forest that learns from them."""
