"""Descent on all free parameters: BFGS, and the projected gradient with Armijo backtracking."""
