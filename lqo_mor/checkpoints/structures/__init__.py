"""How state-space layers are connected in models whose code is known, one structure a file."""
