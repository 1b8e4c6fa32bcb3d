"""Model order reduction: every method returns a `Reduction`."""
