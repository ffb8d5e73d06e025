"""Adversarial attacks for PyTorch: exact threats, per-image randomness, the same result at any batch size."""
