"""PyTorch modules of systems and models; imported on demand."""
