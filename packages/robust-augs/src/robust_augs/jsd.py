"""The Jensen-Shannon consistency of predictions over several views of an image."""

import torch
from torch import Tensor


def jensen_shannon(clean_logits: Tensor, *augmented_logits: Tensor) -> Tensor:
    """Measure how much the predictions for the views of each image disagree.

    Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020,
    arXiv:1912.02781, section 3: with p_i = softmax(logits of view i) and M = mean_i p_i, clamped to [1e-7, 1],

        JS = mean_i KL(p_i || M).

    The published loss adds 12 times its mean over the batch to the cross-entropy of the clean view, with two
    augmented views. It is 0 where all views agree (up to the clamp), at most log(number of views), and symmetric.
    Gradients flow into all views. Computed in float32, or in float64 for such logits; finite however large finite
    logits are.

    Args:
        clean_logits: (N, K), of the clean images.
        augmented_logits: one or more of the same shape, of augmented views of the same images in the same order.

    Returns:
        (N,) divergences in nats.

    Raises:
        TypeError: if something is not a floating tensor.
        ValueError: if there is no augmented view, or the shapes differ.

    Examples:
        >>> logits = torch.tensor([[0.0, 0.0], [1000.0, 0.0]])
        >>> jensen_shannon(logits, logits.flip(1))
        tensor([0.0000, 0.6931])
    """
    views = (clean_logits, *augmented_logits)
    if len(views) < 2:
        raise ValueError("jensen_shannon compares views: jensen_shannon(clean_logits, augmented_logits, ...)")
    for logits in views:
        if not isinstance(logits, Tensor):
            raise TypeError(f"logits must be floating tensors (N, K), got {type(logits).__name__}")
        if not logits.is_floating_point():
            raise TypeError(f"logits must be floating tensors (N, K), got {logits.dtype}")
        if logits.ndim != 2 or logits.shape != clean_logits.shape:
            raise ValueError(f"all views need logits of one shape (N, K), got {[tuple(x.shape) for x in views]}")
    log_p = torch.stack([log_probabilities(logits) for logits in views])
    p = log_p.exp()
    log_mean = p.mean(dim=0).clamp(1e-7, 1).log()
    return (p * (log_p - log_mean)).sum(dim=2).mean(dim=0)


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax in float32 or better; finite, so that a probability of 0 times its logarithm is 0."""
    log_p = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
    return log_p.clamp_min(torch.finfo(log_p.dtype).min / 2)
