"""Flips: how often the prediction changes from frame to frame of a sequence that a human sees as one image."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from robust_bench.metrics._rates import beside, ratio
from robust_bench.metrics.alexnet import ALEXNET_FLIP_PROBABILITIES


def frame_pairs(frames: Tensor, noise: bool, difficulty: int = 1) -> tuple[Tensor, Tensor]:
    """Pair the frames of ImageNet-P that are compared, as an older and a newer one.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
    arXiv:1903.12261, and hendrycks/robustness, `ImageNet-P/test.py`. In a noise sequence frame 0 is the
    clean image and every other frame is compared with it: (0, t). In other sequences the frames follow each other, and
    difficulty d compares those d apart: the neighbours in the chains a, a + d, a + 2d ... of all starts a < d, which
    are the pairs (t, t + d).

    Args:
        frames: (N, T, ...), whatever belongs to each frame.
        noise: whether the perturbation is a noise.
        difficulty: 1 in papers (hendrycks/robustness #23). For noise it selects other files, and the pairs stay.

    Returns:
        (old, new), both (N, P, ...): views, P = T - 1 pairs for noise, T - d for others.

    Raises:
        ValueError: if there are too few frames to make a pair, or the difficulty is not at least 1.

    Examples:
        >>> old, new = frame_pairs(torch.tensor([[10, 11, 12, 13]]), noise=False, difficulty=2)
        >>> old.tolist(), new.tolist()
        ([[10, 11]], [[12, 13]])
    """
    if difficulty < 1:
        raise ValueError(f"difficulty must be at least 1, got {difficulty}; papers use 1")
    step = 1 if noise else difficulty
    if frames.ndim < 2 or frames.shape[1] <= step:
        raise ValueError(
            f"a sequence needs at least {step + 1} frames to compare, got the shape {tuple(frames.shape)}: "
            "the first two axes are sequences and frames"
        )
    new = frames[:, step:]
    return (frames[:, :1].expand_as(new) if noise else frames[:, :-step]), new


def sequence_flips(predictions: Tensor | Sequence[Sequence[int]], noise: bool, difficulty: int = 1) -> Tensor:
    """Give every sequence's share of frame pairs with different predictions.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261; the pairs are those of `frame_pairs`. What an
    evaluation collects batch by batch, and what a bootstrap over sequences resamples.

    Args:
        predictions: (N, T), the predicted class of every frame, integers.
        noise: whether the perturbation is a noise, whose frame 0 is the clean image.
        difficulty: how far apart the frames are that are compared; no effect on noise.

    Returns:
        float64 (N,) in [0, 1], on the CPU.

    Raises:
        TypeError: if the predictions are not integers.
        ValueError: if they have another shape, or too few frames.

    Examples:
        >>> sequence_flips([[1, 1, 2, 1], [3, 3, 3, 3]], noise=False).tolist()
        [0.6666666666666666, 0.0]
    """
    try:
        classes = torch.as_tensor(predictions)
    except (TypeError, ValueError) as error:
        raise ValueError(f"predictions must be (N, T), sequences of equally many frames: {error}") from error
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise TypeError(f"predictions must be integer class indices, got {classes.dtype}: use logits.argmax(-1)")
    if classes.ndim != 2:
        raise ValueError(
            f"predictions must have the shape (N, T), one class per frame, got {tuple(classes.shape)}: "
            "logits (N, T, K) become classes with logits.argmax(-1)"
        )
    old, new = frame_pairs(classes, noise, difficulty)
    return (old != new).sum(dim=1).cpu().to(torch.float64) / new.shape[1]


def flip_probability(predictions: Tensor | Sequence[Sequence[int]], noise: bool, difficulty: int = 1) -> float:
    """Give the probability that the prediction differs between two compared frames (FP).

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261: the mean over sequences of the mean over pairs.

    Args:
        predictions: (N, T), the predicted class of every frame of N sequences, integers.
        noise: whether the perturbation is a noise: every frame is compared with frame 0, the clean image, and
            otherwise with the one before it.
        difficulty: how far apart the frames are that are compared, 1 in papers; no effect on noise, where it selects
            other files.

    Returns:
        A fraction in [0, 1].

    Raises:
        TypeError: if the predictions are not integers.
        ValueError: if they have another shape, too few frames, or no sequence.

    Examples:
        >>> flip_probability([[1, 2, 2, 2]], noise=True), round(flip_probability([[1, 2, 2, 2]], noise=False), 4)
        (1.0, 0.3333)
    """
    return mean_of_sequences(sequence_flips(predictions, noise, difficulty))


def flip_rates(
    flip_probabilities: Mapping[str, float], baseline: Mapping[str, float] = ALEXNET_FLIP_PROBABILITIES
) -> dict[str, float]:
    """Divide every perturbation's flip probability by that of the baseline.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261: FR_p = FP_p / FP^AlexNet_p.

    Args:
        flip_probabilities: per perturbation, fractions in [0, 1]. Exactly the baseline's perturbations: one that is
            missing or extra is an error.
        baseline: the same of the model to compare with; AlexNet's are those on ImageNet-P at difficulty 1.

    Returns:
        The flip rate per perturbation as a fraction, in the baseline's order.

    Raises:
        TypeError: if something is not a mapping of numbers.
        ValueError: if a perturbation is missing or unknown, a value is NaN or outside [0, 1] (most likely per cent), or
            a baseline is 0. The message names the perturbation.

    Examples:
        >>> flip_rates({"tilt": 0.03, "scale": 0.1}, baseline={"tilt": 0.06, "scale": 0.2})
        {'tilt': 0.5, 'scale': 0.5}
    """
    pairs = beside(flip_probabilities, baseline, called="flip_probabilities")
    return {name: ratio(value, base, name) for name, (value, base) in pairs.items()}


def mean_flip_rate(
    flip_probabilities: Mapping[str, float], baseline: Mapping[str, float] = ALEXNET_FLIP_PROBABILITIES
) -> float:
    """Average the flip rates (mFR): 1 flips as often as AlexNet, 0 never.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261. CIFAR-P has no baseline: there the mean of the
    flip probabilities is reported.

    Args:
        flip_probabilities: per perturbation, as in `flip_rates`; all 10 of ImageNet-P with the default baseline.
        baseline: the same of the model to compare with.

    Returns:
        mFR as a fraction: 0.461 where papers print 46.1.

    Raises:
        TypeError: as `flip_rates`.
        ValueError: as `flip_rates`; a perturbation that is missing too, since a mean over fewer is another score.

    Examples:
        >>> mean_flip_rate(ALEXNET_FLIP_PROBABILITIES)
        1.0
    """
    return fmean(flip_rates(flip_probabilities, baseline).values())


def mean_of_sequences(values: Tensor) -> float:
    """Average what every sequence (N,) has.

    Raises:
        ValueError: if there is none.
    """
    if not len(values):
        raise ValueError("there is no sequence to average over: give at least one")
    return float(values.mean())
