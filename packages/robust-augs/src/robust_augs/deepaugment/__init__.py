"""DeepAugment: distorted copies of a data set by image-to-image networks with edited weights and activations."""

from robust_augs.deepaugment.deep_augment import DeepAugment as DeepAugment

__all__ = ["DeepAugment"]
