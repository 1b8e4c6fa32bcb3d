"""Formats of single state-space layers, one family a file: where their tensors are, and the maps to systems and back."""
