"""Convolutions, each with a form for each backend."""
