"""Image classifiers that take images in [0, 1]: timm models with the normalisation inside, and weights that load safely."""
