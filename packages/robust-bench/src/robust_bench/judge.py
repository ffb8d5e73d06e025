"""What a model says about a few images, under every condition of an evaluation."""

import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model, ModelError, check_batch, check_logits, warn_of_classes, warn_of_softmax
from robust_bench.conditions import Clean, Condition, Suite
from robust_bench.records import Records
from robust_bench.warning import EvaluationWarning

SUITES = "suites"
"""The folder of what suites of attacks know of images whose records are not written yet."""

Batch = tuple[Tensor, Tensor, Tensor]
"""Images (N, C, H, W), labels (N,) and ids (N,), on the CPU."""

Tell = Callable[[int, Records], None]
"""Told of the records of some images under the condition of this number, as soon as they are known."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges images.

    Args:
        model: on the device, in eval mode.
        conditions: what is done to the images.
        seed: of their random draws.
        device: where to compute.
        classes: of the benchmark, None if unknown.
        notes: folder where a suite of attacks keeps what it knows, so that a killed process loses little.
    """

    model: Model
    conditions: tuple[Condition, ...]
    seed: int
    device: torch.device
    classes: int | None
    notes: Path | None = None
    _begun: list[bool] = field(default_factory=list)

    def records(self, batches: Iterable[Batch], tell: Tell) -> tuple[Tensor, list[Records]]:
        """Judge batches: the labels of all, and for every condition their records.

        A batch goes through the model and is forgotten, except where there is a suite of attacks: suites get all
        batches at once, so that theirs stay full.
        """
        suites = [number for number, condition in enumerate(self.conditions) if isinstance(condition, Suite)]
        parts: list[list[Records]] = [[] for _ in self.conditions]
        all_labels: list[Tensor] = []
        kept: list[Batch] = []
        for images, labels, ids in batches:
            check_batch(images, labels)
            if not self._begun and len(suites) == len(self.conditions):
                self._look(images.to(self.device, torch.float32), labels.to(self.device, torch.int64))
            if len(suites) < len(self.conditions):
                for number, records in self._batch(images, labels, ids):
                    parts[number].append(records)
                    tell(number, records)
            if suites:
                kept.append((images, labels, ids))
            all_labels.append(labels)
        if kept:
            images, labels, ids = (torch.cat(each) for each in zip(*kept, strict=True))
            size = max(len(ids) for _, _, ids in kept)
            for number in suites:
                records = self._suite(number, images, labels, ids, size)
                parts[number].append(records)
                tell(number, records)
        return torch.cat(all_labels), [Records.joined(each) for each in parts]

    def forget(self, ids: Sequence[int]) -> None:
        """Remove what suites have kept of images whose records are written."""
        if self.notes is not None:
            for number in range(len(self.conditions)):
                self._note(number, torch.tensor(ids)).unlink(missing_ok=True)

    def _note(self, number: int, ids: Tensor) -> Path:
        assert self.notes is not None
        images = hashlib.sha256(ids.to(torch.int64).numpy().tobytes()).hexdigest()[:16]
        return self.notes / SUITES / f"{number}-{images}.pt"

    def _batch(self, images: Tensor, labels: Tensor, ids: Tensor) -> Iterator[tuple[int, Records]]:
        images, labels = images.to(self.device, torch.float32), labels.to(self.device, torch.int64)
        conditions = [each for each in enumerate(self.conditions) if not isinstance(each[1], Suite)]
        clean: Records | None = None
        if any(condition.only_right or isinstance(condition, Clean) for _, condition in conditions):
            clean = self._look(images, labels)
        for number, condition in conditions:
            if clean is not None and isinstance(condition, Clean):
                yield number, clean
                continue
            start = time.perf_counter()
            if clean is None or not condition.only_right:
                changed = condition.change(self.model, images, labels, ImageRandom(self.seed, ids))
                found = self._look(changed, labels)
                yield number, replace(found, seconds=time.perf_counter() - start)
                continue
            predictions, confidences, right = clean.predictions.clone(), clean.confidences.clone(), clean.right.clone()
            rows = torch.nonzero(clean.right)[:, 0]
            if len(rows):
                here = rows.to(self.device)
                some, some_labels = images[here], labels[here]
                changed = condition.change(self.model, some, some_labels, ImageRandom(self.seed, ids[rows]))
                found = self._look(changed, some_labels)
                predictions[rows], confidences[rows], right[rows] = found.predictions, found.confidences, found.right
            seconds = time.perf_counter() - start
            yield number, Records(predictions=predictions, confidences=confidences, right=right, seconds=seconds)

    def _suite(self, number: int, images: Tensor, labels: Tensor, ids: Tensor, batch_size: int) -> Records:
        condition = self.conditions[number]
        assert isinstance(condition, Suite)
        start = time.perf_counter()
        images, labels = images.to(torch.float32), labels.to(torch.int64)
        kept = None if self.notes is None else self._note(number, ids)
        report = condition.run(self.model, images, labels, ids, self.seed, batch_size, kept)
        assert report.adversarial is not None
        for flag in report.flags:
            warnings.warn(f"{condition.label}: {flag.message}", EvaluationWarning, stacklevel=2)
        parts = [
            self._look(some.to(self.device), some_labels.to(self.device))
            for some, some_labels in zip(
                torch.split(report.adversarial, batch_size), torch.split(labels, batch_size), strict=True
            )
        ]
        return replace(
            Records.joined(parts),
            right=report.robust.cpu(),
            seconds=time.perf_counter() - start,
            broken_by=report.broken_by,
        )

    def _look(self, images: Tensor, labels: Tensor) -> Records:
        """What the model says of images; its first answer is looked at more closely."""
        start = time.perf_counter()
        first = not self._begun
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
            self._begun.append(True)
        predictions = logits.argmax(dim=1)
        confidences = logits.float().softmax(dim=1).gather(1, predictions[:, None])[:, 0]
        return Records(
            predictions=predictions.cpu(),
            confidences=confidences.cpu(),
            right=(predictions == labels).cpu(),
            seconds=time.perf_counter() - start,
        )
