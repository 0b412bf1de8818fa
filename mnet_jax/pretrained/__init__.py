"""Weights that others published, and what they say of them."""
