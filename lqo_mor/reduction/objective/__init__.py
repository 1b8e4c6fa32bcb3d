"""The error as a function of the reduced system, with gradients."""
