"""Readers of other libraries' weights files; nothing in a file is executed."""
