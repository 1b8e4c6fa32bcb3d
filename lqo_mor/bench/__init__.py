"""Measured comparisons of our solvers with those of other packages, for ``lqo-mor bench`` and ``benchmarks/``."""
