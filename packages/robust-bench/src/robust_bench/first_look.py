"""The classic mistakes in evaluating a model, looked for on its first batch."""

import contextlib
import functools
import inspect
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from robust_bench._checks import Model, ModelError
from robust_bench.warning import EvaluationWarning

_FEW = 8  # images that the model sees once more


def first_look(model: Model, answers: Model, images: Tensor, raw: Tensor, scores: Tensor, classes: int | None) -> None:
    """Look for mistakes that give plausible but wrong numbers; each warning says how to mend its own.

    Args:
        model: as the user gave it.
        answers: as the engine calls it, with the answer of the benchmark.
        images: the first batch (N, C, H, W).
        raw: the model's output for them, (N, K).
        scores: those of the benchmark's classes that the answer made of it.
        classes: of the benchmark, None where that does not matter.

    Raises:
        ModelError: if the model is a backbone without a classifier.
    """
    _check_classifier(model, raw, classes)
    _warn_of_softmax(raw)
    _warn_of_classes(raw, classes)
    _warn_of_missing_normalisation(model)
    _warn_of_darkness(images)
    _warn_of_unsteady_answers(answers, images, scores)


@contextlib.contextmanager
def hidden_modes_checked(model: Model) -> Iterator[None]:
    """Look for training mode where the engine cannot set it, in what a function closes over, while it is called.

    A function that sets its module to eval mode by itself is let pass; of another the buffers come back as they were.

    Raises:
        ModelError: afterwards, if a module there would answer otherwise in eval mode.
    """
    hidden = [] if isinstance(model, nn.Module) else list(_hidden_modules(model))
    training = [each for each in hidden if _in_training(each)]
    buffers = [(buffer, buffer.clone()) for each in training for buffer in each.buffers() if not is_lazy(buffer)]
    yield
    if still := [each for each in training if _in_training(each)]:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        raise ModelError(
            f"{type(still[0]).__name__}, which the model calls, is in training mode: dropout and batch norm would "
            "change its answers. Call its .eval() first, or pass the module itself"
        )


def _in_training(module: nn.Module) -> bool:
    return any(each.training and _depends_on_mode(each) for each in module.modules())


def _depends_on_mode(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm | _DropoutNd | nn.RReLU) or "Drop" in type(module).__name__


def _hidden_modules(function: Any, known: set[int] | None = None) -> Iterator[nn.Module]:
    """Modules that a function, a bound method or a partial refers to, or a function that it refers to."""
    seen = set() if known is None else known
    if id(function) in seen:
        return
    seen.add(id(function))
    if isinstance(function, functools.partial):
        found = [function.func, *function.args, *function.keywords.values()]
    elif inspect.ismethod(function):
        found = [function.__self__]
    elif inspect.isfunction(function):
        used = inspect.getclosurevars(function)
        found = [*used.nonlocals.values(), *used.globals.values()]
    else:
        found = list(getattr(function, "__dict__", {}).values())
    for value in found:
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, functools.partial) or inspect.ismethod(value) or _is_own(value):
            yield from _hidden_modules(value, seen)


def _is_own(value: object) -> bool:
    """Whether it is a plain function outside of torch and Python's library, whose closures are worth a look."""
    return inspect.isfunction(value) and value.__module__.partition(".")[0] not in ("torch", *sys.stdlib_module_names)


def _warn_of_softmax(logits: Tensor) -> None:
    """Gradients through a softmax twice hide weakness from attacks."""
    if logits.shape[1] > 1 and bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1.0).abs() < 1e-4).all()):
        _warn(
            "the model's outputs are probabilities (every row sums to 1): return logits, without the softmax at the "
            "end, since attacks need the loss of the logits and are too weak otherwise"
        )


def _check_classifier(model: Model, logits: Tensor, classes: int | None) -> None:
    """A timm model that was built for its features says so, also inside a wrapper."""
    if not isinstance(model, nn.Module) or logits.shape[1] == classes:
        return
    own = [module.num_classes for module in model.modules() if isinstance(getattr(module, "num_classes", None), int)]
    if own and not any(own):
        raise ModelError(
            f"the model is a backbone that returns {logits.shape[1]} features (num_classes=0): build it with its "
            f"classifier, e.g. create_model(..., num_classes={classes or 1000})"
        )


def _warn_of_classes(logits: Tensor, classes: int | None) -> None:
    if classes is None or logits.shape[1] == classes:
        return
    _warn(
        f"the model returns {logits.shape[1]} logits and the benchmark has {classes} classes: class number k of the "
        "benchmark is taken for logit k, which is right only if the first classes of both are the same, and wrong for "
        "a backbone that returns features"
    )


def _warn_of_missing_normalisation(model: Model) -> None:
    """A bare timm model declares mean and std, and leaves the step to its data pipeline."""
    config: Any = getattr(model, "pretrained_cfg", None)
    if not isinstance(model, nn.Module) or not isinstance(config, dict) or "mean" not in config:
        return
    mean, std = tuple(config["mean"]), tuple(config.get("std", ()))
    if any(mean) or any(value != 1.0 for value in std):
        _warn(
            f"{type(model).__name__} comes from timm without its normalisation step (mean {mean}, std {std}), and "
            "images here lie in [0, 1]: use robust_models.create_model, or put robust_models.Normalize before it, "
            "unless it was trained on [0, 1]"
        )


def _warn_of_darkness(images: Tensor) -> None:
    if len(images) > 1 and images.numel() and 0.0 < float(images.max()) <= 1.0 / 255.0 + 1e-6:
        _warn(
            f"no pixel of the first {len(images)} images is brighter than {float(images.max()):.4g}: were 8-bit images "
            "divided by 255 twice?"
        )


def _warn_of_unsteady_answers(model: Model, images: Tensor, logits: Tensor) -> None:
    """Ask the same again, and ask about some of the images alone."""
    some = images[: max(1, min(_FEW, len(images) // 2))]
    scale = float(logits.abs().max()) + 1e-12
    with torch.no_grad():
        first, second = model(some), model(some)
    if float((first - second).abs().max()) > 1e-3 * scale:
        _warn(
            "the model answers differently when it is asked twice (dropout that is on, or a random defence): switch it "
            "off, or judge a random defence by AutoAttack's version 'rand'"
        )
    elif len(some) < len(images) and float((first - logits[: len(some)]).abs().max()) > 1e-2 * scale:
        _warn(
            "the model's answer for an image depends on the other images in the batch (batch norm in training mode?): "
            "the result will depend on the batch size. Call .eval() on what normalises"
        )


def _warn(message: str) -> None:
    warnings.warn(message, EvaluationWarning, stacklevel=2)
