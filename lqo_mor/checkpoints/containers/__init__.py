"""Files that hold tensors, read without executing anything in them."""
