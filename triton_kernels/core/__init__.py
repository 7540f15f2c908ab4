"""What the Triton kernels share: launching, elementary functions, tiles."""
