"""Robust training of image models as one visible loop: recipes, adversarial objectives, exact resume."""
