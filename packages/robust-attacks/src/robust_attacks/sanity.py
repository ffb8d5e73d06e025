"""Signs that a robust accuracy may not mean what it seems to."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from robust_attacks._checks import Model, check_call
from robust_attacks._passes import Passes
from robust_attacks._purity import pristine
from robust_attacks.losses import Loss, cross_entropy, dlr, predicted
from robust_attacks.pgd import PGD
from robust_attacks.random import ImageRandom
from robust_attacks.report import Flag, Stage
from robust_attacks.threats import Linf

_SURPRISE = 0.002  # share of the images that a later attack may break without a sign of masked gradients
_REPEATS = 5
_LEFT = 0.05  # share of the images that a sweep may leave standing without a sign


def training_mode(model: Model) -> list[Flag]:
    """Modules that would behave otherwise in evaluation: batch statistics or dropout in training mode."""
    owner = getattr(model, "__self__", model)
    if not isinstance(owner, nn.Module):
        return []
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    names = [name for name, module in owner.named_modules() if module.training and isinstance(module, kinds)]
    if not names:
        return []
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    message = f"{len(names)} modules are in training mode ({some}), so images influence each other: call model.eval()"
    return [Flag("training-mode", message, len(names))]


def before(
    model: Model, images: Tensor, labels: Tensor, device: torch.device, batch_size: int, stochastic: bool
) -> list[Flag]:
    """What the clean images tell about the model: 5 forward passes of one batch, 2 gradients of every image.

    Args:
        model: images to logits.
        images: classified correctly, (n, C, H, W).
        labels: true classes, (n,).
        device: where the model works.
        batch_size: images per pass.
        stochastic: the attacks expect a randomised model, so it is not worth a flag.
    """
    if not len(images):
        return []
    first = images[:batch_size].to(device)
    flags = _dynamic(model, first[:1])
    passes = Passes(model)
    outputs = [passes.logits(first) for _ in range(1 if stochastic else _REPEATS)]
    if not stochastic:
        flags += _randomised(torch.stack(outputs).double())
    logits = outputs[0]
    sums = logits.double().sum(dim=1)
    if bool(((logits >= -1e-5) & (logits <= 1 + 1e-5)).all()) and bool(((sums - 1).abs() <= 1e-5).all()):
        message = "the outputs look like probabilities: let the model return logits, or cross-entropy has no gradient"
        flags.append(Flag("probabilities", message, float(sums.mean())))
    losses: Mapping[str, Loss] = {"cross-entropy": cross_entropy} | ({"DLR": dlr} if logits.shape[1] > 2 else {})
    for name, loss in losses.items():
        batches = zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True)
        flags += _flat(passes, ((some.to(device), theirs.to(device)) for some, theirs in batches), name, loss)
    return flags


def after(parts: list[Stage]) -> list[Flag]:
    """What the order in which the images broke tells: attacks without gradients should not do better than those with.

    Args:
        parts: the stages so far; those that are named `square...` and `fab...` are compared with what came before.
    """
    flags = []
    for earlier, later in pairwise(parts):
        drop = float((earlier.robust & ~later.robust).double().mean()) if len(later.robust) else 0.0
        if drop > _SURPRISE and later.name.startswith("square"):
            message = (
                f"Square broke {drop:.1%} of the images, which the attacks before it had not: gradients may be masked"
            )
            flags.append(Flag("square-wins", message, drop))
        if drop > _SURPRISE and later.name.startswith("fab"):
            message = f"FAB broke {drop:.1%} of the images, which APGD could not: gradients may be masked or scaled"
            flags.append(Flag("fab-wins", message, drop))
    return flags


def sweep(model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> list[Flag]:
    """Signs of masked gradients that only further attacks can show; costs 23 forward and 20 backward passes per image.

    Carlini et al., "On evaluating adversarial robustness", arXiv:1902.06705, sections 3.7 and 4.2: an attack without
    room changes nothing, one that may replace half of the range of every pixel leaves nothing, and the loss rises with
    the steps in between.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K).
        images: float32 or float64 (N, C, H, W) in [0, 1].
        labels: true classes, int64 (N,).
        random: the images' random streams; None draws one seed from torch's CPU generator.

    Raises:
        TypeError: if images, labels, `random` or logits are of a wrong type.
        ValueError: if their shapes or values are wrong.

    Examples:
        >>> model = lambda images: torch.stack((images.round().sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> images, random = torch.full((2, 1, 1, 2), 0.6), ImageRandom(0)
        >>> [flag.name for flag in sweep(model, images, torch.tensor([0, 0]), random=random)]
        ['unbounded-attack']
    """
    random = check_call(Linf(eps=0.0), images, labels, random)
    attacks = {eps: PGD(threat=Linf(eps=eps), steps=10, step_size=0.1) for eps in (0.0, 0.5)}
    points = {eps: attack(model, images, labels, random=random) for eps, attack in attacks.items()}
    with pristine(model, images, random.seed) as lent, torch.no_grad():
        clean, unmoved, far = (lent(some) for some in (images.clone(), points[0.0], points[0.5]))
    stands = predicted(clean) == labels
    flags = []
    moved = int(((predicted(unmoved) == labels) != stands).sum())
    if moved:
        message = f"{moved} images change their verdict though nothing may change: the model randomises or keeps state"
        flags.append(Flag("attack-without-room", message, moved / len(labels)))
    left = float((predicted(far) == labels).double().mean()) if len(labels) else 0.0
    if left > _LEFT:
        message = f"{left:.1%} of the images withstand changes of half the range of every pixel: gradients are masked"
        flags.append(Flag("unbounded-attack", message, left))
    rises = cross_entropy(far, labels) > cross_entropy(clean, labels)
    flat = float((stands & ~rises).double().mean()) if len(labels) else 0.0
    if flat > _LEFT:
        message = f"the loss of {flat:.1%} of the images does not rise with the steps: gradients lead nowhere"
        flags.append(Flag("flat-loss", message, flat))
    return flags


def _randomised(outputs: Tensor) -> list[Flag]:
    """(5, n, K) outputs of the same images."""
    directions = outputs / torch.linalg.vector_norm(outputs, dim=2, keepdim=True).clamp_(min=1e-300)
    distance = float(torch.linalg.vector_norm(directions - directions[0], dim=2).nan_to_num_(nan=0.0).max())
    changing = int((outputs.argmax(dim=2) != outputs[0].argmax(dim=1)).any(dim=0).sum())
    if not changing and distance <= 1e-4:
        return []
    message = (
        f"the model answers the same images differently (logits turn by {distance:.1e}, {changing} of "
        f'{outputs.shape[1]} predictions change): use auto_attack(..., version="rand")'
    )
    return [Flag("randomised", message, distance)]


def _flat(passes: Passes, batches: Iterable[tuple[Tensor, Tensor]], name: str, loss: Loss) -> list[Flag]:
    flat = count = 0
    for images, labels in batches:
        gradient = passes.gradient(images, partial(_of_labels, loss, labels))[2]
        count += len(images)
        flat += 0 if gradient is None else int((gradient.flatten(1) == 0).all(dim=1).sum())
    if not flat:
        return []
    message = f"{flat} of {count} images have a {name} gradient of exactly zero: gradient attacks start blind there"
    return [Flag("zero-gradient", message, flat / count)]


def _of_labels(loss: Loss, labels: Tensor, logits: Tensor) -> Tensor:
    return loss(logits, labels)


def _dynamic(model: Model, images: Tensor) -> list[Flag]:
    calls = [0]
    with _counting(calls), torch.no_grad():
        model(images)
    if not calls[0]:
        return []
    message = (
        "the forward pass itself asks for gradients, as defences do that adapt to each input: the attacks do not "
        "differentiate through that, so an adaptive attack is needed"
    )
    return [Flag("dynamic-model", message, calls[0])]


@contextlib.contextmanager
def _counting(calls: list[int]) -> Iterator[None]:
    """Count who asks autograd for gradients meanwhile."""
    originals = torch.autograd.grad, torch.autograd.backward

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            return function(*args, **kwargs)

        return wrapper

    torch.autograd.grad, torch.autograd.backward = (counted(function) for function in originals)
    try:
        yield
    finally:
        torch.autograd.grad, torch.autograd.backward = originals
