"""Two-sided iterations (TSIA, IRKA)."""
