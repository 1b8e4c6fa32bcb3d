"""The published experiment: an LQO Deep SSM on the IMDb reviews of the Long Range Arena, compressed without retraining."""
