"""Compression of whole models: layers reduced, budgets split over them, calibration, reports."""
