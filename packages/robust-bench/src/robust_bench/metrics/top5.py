"""Top-5 and Zipf distances: how far the order of the classes moves from frame to frame of a sequence."""

from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor

from robust_bench.metrics._rates import beside, ratio
from robust_bench.metrics.flips import frame_pairs, mean_of_sequences

LARGEST = 18
"""The largest top-5 distance: the classes ranked 1, 2, 3 leave the top five, those ranked 4, 5 come to its head."""


def top5_classes(logits: Tensor) -> Tensor:
    """Give the five classes with the largest logits, best first, ties by class index.

    All that the top-5 distance needs of an image: five integers, fit for a log of an evaluation. The first is the
    argmax. Only rows with a tie that matters are sorted; `torch.topk` alone leaves the order of ties open.

    Args:
        logits: (..., K) floats, K at least 5.

    Returns:
        int64 (..., 5), where the logits are.

    Raises:
        TypeError: if the logits are not a float tensor.
        ValueError: if there are fewer than five classes, or a logit is NaN.

    Examples:
        >>> top5_classes(torch.tensor([0.0, 3.0, 1.0, 3.0, 2.0, -1.0])).tolist()
        [1, 3, 4, 2, 0]
    """
    _check_logits(logits)
    if logits.shape[-1] < 5:
        raise ValueError(f"top-5 needs at least 5 classes, got logits of the shape {tuple(logits.shape)}")
    values, classes = logits.topk(min(6, logits.shape[-1]), dim=-1)  # the sixth tells whether the fifth is tied
    tied = (values[..., 1:] == values[..., :-1]).any(dim=-1)
    classes = classes[..., :5].contiguous()
    if tied.any():
        classes[tied] = logits[tied].argsort(dim=-1, descending=True, stable=True)[..., :5]
    return classes


def sequence_top5_distances(classes: Tensor, noise: bool, difficulty: int = 1) -> Tensor:
    """Give every sequence's mean top-5 distance, from the top-5 classes of its frames.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
    arXiv:1903.12261. Let sigma(k) be the rank in the new frame of the class that the old one ranks k:
    d = sum_{k=1..5} |min(k, 6) - min(sigma(k), 6)|, and a rank beyond the fifth counts as 6. So the five classes of
    either frame are enough. The largest distance is 18; it is not symmetric. The pairs of frames are those of
    `frame_pairs`.

    Args:
        classes: integers (N, T, 5), the classes of `top5_classes`, best first.
        noise: whether the perturbation is a noise, whose frame 0 is the clean image.
        difficulty: how far apart the frames are that are compared; no effect on noise.

    Returns:
        float64 (N,) in [0, 18], on the CPU.

    Raises:
        TypeError: if the classes are not an integer tensor.
        ValueError: if they have another shape, too few frames, or one class twice in a frame.

    Examples:
        >>> frames = torch.tensor([[[1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [2, 1, 3, 4, 9]]])
        >>> sequence_top5_distances(frames, noise=False).tolist()
        [1.5]
    """
    _check_classes(classes)
    old, new = frame_pairs(classes, noise, difficulty)
    ranks = torch.full(old.shape, 6, dtype=torch.int8, device=classes.device)
    for place in range(5):
        ranks -= (old == new[..., place : place + 1]).to(torch.int8) * (5 - place)
    ranks -= torch.arange(1, 6, dtype=torch.int8, device=classes.device)
    return ranks.abs().sum(dim=(1, 2)).cpu().to(torch.float64) / new.shape[1]


def top5_distance(logits: Tensor, noise: bool, difficulty: int = 1) -> float:
    """Give the mean top-5 distance between two compared frames (T5D).

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261; the formula stands in `sequence_top5_distances`,
    which works batch by batch and from a log. Ties between logits are broken by class index.

    Args:
        logits: (N, T, K) floats of N sequences, K at least 5.
        noise: whether the perturbation is a noise: every frame is compared with frame 0, the clean image, and
            otherwise with the one before it.
        difficulty: how far apart the frames are that are compared, 1 in papers; no effect on noise.

    Returns:
        A number in [0, 18].

    Raises:
        TypeError: if the logits are not a float tensor.
        ValueError: if they have another shape, fewer than 5 classes, a NaN, too few frames, or no sequence.

    Examples:
        >>> top5_distance(torch.eye(6)[None, :2], noise=False)  # ranks 0 1 2 3 4 | 5, then 1 0 2 3 4 | 5
        2.0
    """
    _check_sequences(logits)
    return mean_of_sequences(sequence_top5_distances(top5_classes(logits), noise, difficulty))


def mean_top5_distance(distances: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Average the top-5 distances relative to a baseline (mT5D): 1 moves as far as the baseline, 0 not at all.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261: mean_p T5D_p / T5D^AlexNet_p. AlexNet's T5D lie
    in a spreadsheet linked from hendrycks/robustness #49; this package has neither a copy nor a guess: measure AlexNet,
    or bring the numbers.

    Args:
        distances: T5D per perturbation, in [0, 18]. Exactly the baseline's perturbations.
        baseline: the same of the model to compare with.

    Returns:
        mT5D as a fraction: 0.705 where papers print 70.5.

    Raises:
        TypeError: if something is not a mapping of numbers.
        ValueError: if a perturbation is missing or unknown, a value is NaN or outside [0, 18], or a baseline is 0.

    Examples:
        >>> mean_top5_distance({"tilt": 1.5, "scale": 1.0}, baseline={"tilt": 3.0, "scale": 4.0})
        0.375
    """
    pairs = beside(distances, baseline, called="distances", high=LARGEST)
    return fmean(ratio(value, base, name) for name, (value, base) in pairs.items())


def sequence_zipf_distances(logits: Tensor, noise: bool, difficulty: int = 1) -> Tensor:
    """Give every sequence's mean Zipf distance, in which each class counts by its rank.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261, and hendrycks/robustness, `ImageNet-P/test.py`: with sigma as
    in `sequence_top5_distances`, d = sum_k |1/k - 1/sigma(k)| / k over all classes. It needs all ranks, thus a sort of
    every frame and a few times the memory of the logits. The pairs of frames are those of `frame_pairs`.

    Args:
        logits: (N, T, K) floats; ties are broken by class index.
        noise: whether the perturbation is a noise, whose frame 0 is the clean image.
        difficulty: how far apart the frames are that are compared; no effect on noise.

    Returns:
        float64 (N,), at least 0, on the CPU.

    Raises:
        TypeError: if the logits are not a float tensor.
        ValueError: if they have another shape, a NaN, or too few frames.

    Examples:
        >>> sequence_zipf_distances(torch.tensor([[[2.0, 1.0], [1.0, 2.0]]]), noise=False).tolist()
        [0.75]
    """
    _check_sequences(logits)
    precision = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no float64
    order = logits.argsort(dim=-1, descending=True, stable=True)
    weights = 1.0 / torch.arange(1, logits.shape[-1] + 1, dtype=precision, device=logits.device)
    inverse = torch.empty(logits.shape, dtype=precision, device=logits.device)
    inverse.scatter_(-1, order, weights.expand(logits.shape))  # 1 / rank of every class
    old, new = frame_pairs(inverse, noise, difficulty)
    return ((old - new).abs_() * old).sum(dim=-1).mean(dim=1).cpu().to(torch.float64)


def zipf_distance(logits: Tensor, noise: bool, difficulty: int = 1) -> float:
    """Give the mean Zipf distance between two compared frames.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261; the formula stands in `sequence_zipf_distances`.

    Args:
        logits: (N, T, K) floats of N sequences; ties are broken by class index.
        noise: whether the perturbation is a noise: every frame is compared with frame 0, the clean image, and
            otherwise with the one before it.
        difficulty: how far apart the frames are that are compared, 1 in papers; no effect on noise.

    Returns:
        A number, at least 0.

    Raises:
        TypeError: if the logits are not a float tensor.
        ValueError: if they have another shape, a NaN, too few frames, or no sequence.

    Examples:
        >>> zipf_distance(torch.tensor([[[2.0, 1.0], [1.0, 2.0]]]), noise=True)
        0.75
    """
    return mean_of_sequences(sequence_zipf_distances(logits, noise, difficulty))


def _check_logits(logits: object) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        found = str(logits.dtype) if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a float tensor, one number per class, got {found}")
    if logits.ndim < 1 or logits.isnan().any():
        what = "a NaN" if logits.ndim else "a single number"
        raise ValueError(f"logits must be (..., K) without NaN, got {what}: such frames have no order of classes")


def _check_classes(classes: object) -> None:
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.dtype == torch.bool:
        found = str(classes.dtype) if isinstance(classes, Tensor) else type(classes).__name__
        raise TypeError(f"classes must be a tensor of integer class indices, got {found}: use top5_classes(logits)")
    if classes.ndim != 3 or classes.shape[2] != 5:
        raise ValueError(
            f"classes must have the shape (N, T, 5), got {tuple(classes.shape)}: use top5_classes(logits (N, T, K))"
        )
    ordered = classes.sort(dim=-1).values
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        raise ValueError("classes holds one class twice in a frame: give the five different ones of top5_classes")


def _check_sequences(logits: object) -> None:
    _check_logits(logits)
    if isinstance(logits, Tensor) and logits.ndim != 3:
        raise ValueError(f"logits must have the shape (N, T, K): sequences, frames, classes; got {tuple(logits.shape)}")
