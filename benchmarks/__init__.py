"""Measurements behind the figures of the documentation, and the script that trains the demonstration model."""
