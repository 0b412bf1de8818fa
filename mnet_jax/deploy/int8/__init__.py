"""Rounding a folded network to int8."""
