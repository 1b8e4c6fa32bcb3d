"""Systems as frozen dataclasses; they carry arrays and know nothing of solvers."""
