"""Sharpness-aware optimisers for PyTorch that wrap any optimizer and resume bit for bit."""
