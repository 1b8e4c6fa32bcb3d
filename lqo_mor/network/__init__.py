"""Deep state-space models: what runs."""
