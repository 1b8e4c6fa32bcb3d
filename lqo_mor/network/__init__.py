"""Deep state-space models: forward pass and compression."""
