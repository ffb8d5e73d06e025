"""What a model says about a few images, under every condition of an evaluation."""

import contextlib
import functools
import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from robust_attacks import ImageRandom, exact_arithmetic
from torch import Tensor
from torch.nn import functional

from robust_bench._checks import Model, ModelError, check_batch, check_logits, check_range
from robust_bench.answer import Answer, answering
from robust_bench.conditions import Attacked, Clean, Condition, Measuring, Suite
from robust_bench.first_look import first_look, hidden_modes_checked
from robust_bench.part import LOSS, TOP5
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
        answer: from its logits to scores of the benchmark's classes; None means the logits.
        also: further columns of the records, "top5" and "loss".
        notes: folder where a suite of attacks keeps what it knows, so that a killed process loses little.
    """

    model: Model
    conditions: tuple[Condition, ...]
    seed: int
    device: torch.device
    classes: int | None
    answer: Answer | None = None
    also: tuple[str, ...] = ()
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
            check_batch(images, labels, self._dimensions)
            if len(suites) < len(self.conditions):
                for number, records in self._batch(images, labels, ids):
                    parts[number].append(records)
                    tell(number, records)
            else:
                check_range(images)
                if not self._begun:
                    self._look(images.to(self.device, torch.float32), labels.to(self.device, torch.int64))
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
        labels = torch.cat(all_labels) if all_labels else torch.empty(0, dtype=torch.int64)
        return labels, [Records.joined(each) for each in parts]

    def forget(self, ids: Sequence[int]) -> None:
        """Remove what suites have kept of images whose records are written."""
        if self.notes is not None:
            for number in range(len(self.conditions)):
                self._note(number, torch.tensor(ids)).unlink(missing_ok=True)

    @functools.cached_property
    def _dimensions(self) -> int:
        """Of a batch of images: 4, or 5 for sequences of frames."""
        return max(getattr(condition, "dimensions", 4) for condition in self.conditions)

    @functools.cached_property
    def _answers(self) -> Model:
        """The model with the answer in place of its logits, which is what conditions attack."""
        return self.model if self.answer is None else answering(self.model, self.answer)

    def _note(self, number: int, ids: Tensor) -> Path:
        assert self.notes is not None
        images = hashlib.sha256(ids.to(torch.int64).numpy().tobytes()).hexdigest()[:16]
        return self.notes / SUITES / f"{number}-{images}.pt"

    def _batch(self, images: Tensor, labels: Tensor, ids: Tensor) -> Iterator[tuple[int, Records]]:
        images, labels = images.to(self.device, torch.float32), labels.to(self.device, torch.int64)
        check_range(images)
        conditions = [each for each in enumerate(self.conditions) if not isinstance(each[1], Suite)]
        clean: Records | None = None
        if any(condition.only_right or isinstance(condition, Clean) for _, condition in conditions):
            clean = self._look(images, labels)
        elif not self._begun and any(isinstance(condition, Attacked) for _, condition in conditions):
            self._look(images, labels)  # before an attack calls it
        for number, condition in conditions:
            if clean is not None and isinstance(condition, Clean):
                yield number, clean
                continue
            start = time.perf_counter()
            if isinstance(condition, Measuring):
                if not self._begun:
                    self._look(images if images.ndim == 4 else images[:, 0], labels)
                found = condition.measure(self._answers, images, labels, ImageRandom(self.seed, ids))
                yield number, replace(found, seconds=time.perf_counter() - start)
                continue
            if clean is None or not condition.only_right:
                changed = condition.change(self._answers, images, labels, ImageRandom(self.seed, ids))
                found = self._look(changed, labels)
                yield number, replace(found, seconds=time.perf_counter() - start)
                continue
            rows = torch.nonzero(clean.right)[:, 0]
            found = clean
            if len(rows):
                here = rows.to(self.device)
                some, some_labels = images[here], labels[here]
                changed = condition.change(self._answers, some, some_labels, ImageRandom(self.seed, ids[rows]))
                found = clean.replaced(rows, self._look(changed, some_labels))
            yield number, replace(found, seconds=time.perf_counter() - start)

    def _suite(self, number: int, images: Tensor, labels: Tensor, ids: Tensor, batch_size: int) -> Records:
        condition = self.conditions[number]
        assert isinstance(condition, Suite)
        start = time.perf_counter()
        images, labels = images.to(torch.float32), labels.to(torch.int64)
        kept = None if self.notes is None else self._note(number, ids)
        report = condition.run(self._answers, images, labels, ids, self.seed, batch_size, kept)
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
            with (
                hidden_modes_checked(self.model) if first else contextlib.nullcontext(),
                torch.no_grad(),
                exact_arithmetic(),
            ):
                logits = self._answers(images)
        except ModelError:
            raise
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{len(images)} images of the shape {tuple(images.shape[1:])} do not fit into the device's memory "
                f"({str(error).partition('. ')[0]}): lower batch_size"
            ) from error
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:  # what a shape that does not fit raises
            if not first:
                raise
            raise ModelError(f"the model cannot take images of the shape {tuple(images.shape)}: {error}") from error
        logits = check_logits(logits, images, labels)
        if first:
            self._begun.append(True)
            with torch.no_grad():
                raw = logits if self.answer is None else self.model(images)
            first_look(
                self.model, self._answers, images, raw, logits, None if self.answer is not None else self.classes
            )
        more = {name: COLUMNS[name](logits, labels) for name in self.also}
        return Records.of(logits, labels, seconds=time.perf_counter() - start, more=more)


def _top5(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]).any(dim=1)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), labels, reduction="none")


COLUMNS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {TOP5: _top5, LOSS: _loss}
"""The further columns of records: from scores (n, C) and labels (n,) to a column (n,)."""
