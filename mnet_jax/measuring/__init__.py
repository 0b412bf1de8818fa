"""Clocks, compiled programs, chips and charts."""
