"""Bounds on the error of the output of a whole model."""
