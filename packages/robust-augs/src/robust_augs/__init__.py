"""Training-time augmentations of the robustness literature as batched PyTorch calls with parameters drawn per image."""
