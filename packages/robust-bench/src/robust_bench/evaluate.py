"""The engine: a model's accuracy over a data set, clean and under conditions."""

import contextlib
import datetime
import functools
import platform
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any, cast

import torch
from robust_attacks import ImageRandom
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

from robust_bench import benchmarks
from robust_bench._checks import (
    Model,
    ModelError,
    check_batch,
    check_device,
    check_logits,
    check_pair,
    warn_of_classes,
    warn_of_softmax,
)
from robust_bench._distribution import DISTRIBUTION
from robust_bench.benchmarks import Benchmark
from robust_bench.conditions import Clean, Condition
from robust_bench.progress import bar
from robust_bench.result import Result, Row

Data = str | Benchmark | DataLoader[Any] | Dataset[Any]


def evaluate(
    model: Model,
    data: Data,
    *,
    conditions: Sequence[Condition] | None = None,
    name: str | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 128,
    seed: int = 0,
    workers: int = 0,
    progress: bool | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """Measure a model's accuracy on `data` under every condition.

    An image's id is its position in the data; with the seed it fixes every random number of attacks and corruptions,
    so the result does not depend on the batch size. Under an attack an image counts as right when it is right both
    when clean and under the attack. The model is evaluated in eval mode, in float32 without autocast, and gets its
    modes, buffers and device back afterwards, also after an error or Ctrl-C. The global random states of torch, Python
    and NumPy stay as they were, even if the model or the data draw from them.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K), with its normalisation inside.
        data: the name of a benchmark that needs no files, a `Benchmark`, a data set of (image, label) pairs, or a
            loader of such batches that goes through all of them in order.
        conditions: what is done to the images; None means those of the benchmark, and `(Clean(),)` for other data.
        name: the model's name in tables; None means its class.
        device: where to compute; None means where the model's parameters are.
        batch_size: images per batch (a loader keeps its own).
        seed: of the attacks' and corruptions' random draws.
        workers: processes that read a data set's files; 0 reads in this one. An IterableDataset gets at most one.
        progress: show a progress bar on the standard error stream; None shows it on a terminal only.
        settings: further JSON values for the result's settings, e.g. how to build the model.

    Returns:
        A `Result` with one row per condition.

    Raises:
        TypeError: if the data or the model's output are of the wrong kind.
        ModelError: if the model fails on its first images; its own error is the cause.
        ValueError: if images leave [0, 1], labels have no logit, logits are not finite, the loader does not go
            through its data in order, or there is no image; the message says what to do.

    Examples:
        >>> from robust_bench.datasets import digits
        >>> result = evaluate(lambda images: images.mean(dim=(2, 3)).repeat(1, 10), digits("test"), name="constant")
        >>> result.rows[0].correct, result.rows[0].count
        (45, 450)
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    found = benchmarks.load(data) if isinstance(data, str) else data
    asked, label, source, about = _open(found)
    if conditions is None:
        conditions = found.conditions if isinstance(found, Benchmark) else (Clean(),)
    conditions = tuple(conditions)
    if not conditions:
        raise ValueError("give at least one condition, e.g. conditions=(Clean(),)")
    where = _device(model, device)
    images, correct, seconds = 0, [0] * len(conditions), [0.0] * len(conditions)
    size = None if isinstance(source, DataLoader) else _length(source)
    with (
        _undisturbed(where),
        _ready(model, where),
        torch.autocast(where.type, enabled=False),
        bar(label, None if size is None else size * len(conditions), progress) as shown,
    ):
        classes = found.num_classes if isinstance(found, Benchmark) else None
        judge = _Judge(model=model, conditions=conditions, seed=seed, device=where, classes=classes)
        for batch in _batches(source, batch_size, workers):
            count = 0
            for index, verdict in enumerate(judge.verdicts(*check_pair(batch), first_id=images)):
                count = len(verdict.right)
                correct[index] += int(verdict.right.sum())
                seconds[index] += verdict.seconds
                shown.advance(count, conditions[index].label, correct[index], images + count)
            images += count
    if not images:
        raise ValueError(f"{label} holds no images")
    return Result(
        model=type(model).__name__ if name is None else name,
        benchmark=asked,
        seed=seed,
        rows=tuple(
            Row.accuracy(
                benchmark=label,
                condition=condition.label,
                settings=condition.settings,
                correct=right,
                count=images,
                seconds=time_taken,
            )
            for condition, right, time_taken in zip(conditions, correct, seconds, strict=True)
        ),
        versions=versions(),
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        settings={
            "data": {label: about | {"images": images}},
            "batch_size": batch_size,
            "device": _describe(where),
            **(settings or {}),
        },
    )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which images of a batch were right under one condition, bool (N,) on the CPU, and how long that took."""

    right: Tensor
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """Judges batches, image by image."""

    model: Model
    conditions: tuple[Condition, ...]
    seed: int
    device: torch.device
    classes: int | None

    def verdicts(self, images: Tensor, labels: Tensor, first_id: int) -> Iterator[Verdict]:
        """Give one verdict per condition for a batch whose images have the ids from `first_id` on."""
        if not len(images):
            return
        check_batch(images, labels)
        first = first_id == 0
        ids = torch.arange(first_id, first_id + len(images))
        images, labels = images.to(self.device, torch.float32), labels.to(self.device, torch.int64)
        clean: Tensor | None = None
        clean_seconds = 0.0
        if any(condition.only_right or isinstance(condition, Clean) for condition in self.conditions):
            start = time.perf_counter()
            clean = self._right(images, labels, first)
            clean_seconds = time.perf_counter() - start
        for condition in self.conditions:
            start = time.perf_counter()
            if isinstance(condition, Clean) and clean is not None:
                yield Verdict(right=clean, seconds=clean_seconds)
                continue
            attempted = (
                clean if condition.only_right and clean is not None else torch.ones(len(images), dtype=torch.bool)
            )
            right = torch.zeros(len(images), dtype=torch.bool)
            if attempted.any():
                chosen = torch.nonzero(attempted)[:, 0].to(self.device)
                some, some_labels = images[chosen], labels[chosen]
                changed = condition.change(self.model, some, some_labels, ImageRandom(self.seed, ids[attempted]))
                right[attempted] = self._right(changed, some_labels, first and clean is None)
            yield Verdict(right=right, seconds=time.perf_counter() - start)

    def _right(self, images: Tensor, labels: Tensor, first: bool) -> Tensor:
        try:
            with torch.no_grad():
                logits = self.model(images)
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:  # what a shape that does not fit raises
            if not first:
                raise
            raise ModelError(f"the model cannot take images of the shape {tuple(images.shape)}: {error}") from error
        logits = check_logits(logits, images, labels)
        if first:
            warn_of_softmax(logits)
            warn_of_classes(logits, self.classes)
        return (logits.argmax(dim=1) == labels).cpu()


@functools.cache
def versions() -> Mapping[str, str]:
    """Give the versions that a result depends on."""
    names = ("torch", "timm", "numpy", "scikit-learn", "pillow", "robust-attacks", "robust-models", DISTRIBUTION)
    found = {"python": platform.python_version()} | {name: metadata.version(name) for name in names}
    return MappingProxyType(found)


def _open(data: object) -> tuple[str, str, DataLoader[Any] | Dataset[Any], dict[str, Any]]:
    """Find what was asked for, the data set's name, the source of batches, and a description of the data.

    Raises:
        ValueError: if a loader does not go through all its data in order.
        TypeError: for another kind of data.
    """
    match data:
        case Benchmark():
            return data.name, data.dataset or data.name, data.data, dict(data.settings)
        case DataLoader():
            _check_order(data)
            name = type(data.dataset).__name__
            return name, name, data, {"dataset": name}
        case Dataset():
            name = type(data).__name__
            return name, name, data, {"dataset": name}
    raise TypeError(
        "data must be the name of a benchmark, a Benchmark, a torch data set or a DataLoader, "
        f"got {type(data).__name__}: wrap tensors with torch.utils.data.TensorDataset(images, labels)"
    )


def _check_order(loader: DataLoader[Any]) -> None:
    if loader.drop_last or getattr(loader.batch_sampler, "drop_last", False):
        raise ValueError("the loader has drop_last=True, which would leave images out: use drop_last=False")
    if isinstance(loader.dataset, IterableDataset):
        if loader.num_workers > 1:
            raise ValueError(
                f"the loader reads an IterableDataset in {loader.num_workers} processes, each of which goes through "
                "all of it, or through a part out of order: use num_workers=0 or 1"
            )
        return
    sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    inner = sampler.sampler if type(sampler) is BatchSampler else sampler
    if type(inner) is not SequentialSampler:
        raise ValueError(
            f"the loader takes its data by {type(inner).__name__}, but an image's id must be its position in the data: "
            "use shuffle=False, or pass the data set itself"
        )


def _length(data: Dataset[Any]) -> int | None:
    try:
        return len(cast("Any", data))
    except TypeError:
        return None


def _batches(source: DataLoader[Any] | Dataset[Any], batch_size: int, workers: int) -> Iterator[Any]:
    if type(source) is TensorDataset:  # in memory: slices, without collecting image by image
        for start in range(0, len(source), batch_size):
            yield tuple(tensor[start : start + batch_size] for tensor in source.tensors)
        return
    if isinstance(source, DataLoader):
        yield from source
        return
    if isinstance(source, IterableDataset):
        workers = min(workers, 1)  # every process would go through all of it
    yield from DataLoader(source, batch_size, num_workers=workers)


def _device(model: Model, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return check_device(device)
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return torch.device("cpu")


def _describe(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Give torch, Python and NumPy (where it is loaded) back the global random states that they had before."""
    numpy: Any = sys.modules.get("numpy")
    states = random.getstate(), None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(states[0])
        if numpy is not None:
            numpy.random.set_state(states[1])


@contextlib.contextmanager
def _ready(model: Model, device: torch.device) -> Iterator[None]:
    """Lend the model: in eval mode and on the device inside the block, as it was after it, with its buffers."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    home = _device(model, None)
    try:
        model.eval()
        if home != device:
            model.to(device)
        yield
    finally:
        if home != device:
            model.to(home)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                module._buffers[name] = buffer.copy_(before)
