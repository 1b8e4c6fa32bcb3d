"""Matrix equations: plain arrays in, plain arrays out."""
