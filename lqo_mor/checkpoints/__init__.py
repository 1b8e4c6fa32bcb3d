"""Checkpoint formats: safe reading, recognition and atomic writing."""
