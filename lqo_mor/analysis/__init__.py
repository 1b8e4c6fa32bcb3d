"""Gramians, norms and simulation of systems."""
