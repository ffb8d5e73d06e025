"""Making an adversarial copy: attack, round, look, write."""

import dataclasses
import itertools
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model, check_pair
from robust_bench.conditions import Attacked, Suite
from robust_bench.copies import Copies
from robust_bench.datasets import Folder
from robust_bench.grey_levels import distance, from_levels, rounded_inside, to_levels
from robust_bench.judge import SUITES, Judge
from robust_bench.progress import bar
from robust_bench.reading import numbered_batches
from robust_bench.records import Records
from robust_bench.shards import grouped
from robust_bench.warning import EvaluationWarning
from robust_bench.world import World

SHARE = "share_of_eps"
"""The further column of the records of written images: how far they are from the clean ones, over eps."""


@dataclass(frozen=True, kw_only=True)
class Copying:
    """Makes the adversarial images of a copy.

    Args:
        model: on the device, in eval mode.
        attack: a condition with the attack.
        judge: of clean images, on the same model and device, with the seed.
        batch_size: images that go through the model at once.
        copies: the files.
    """

    model: Model
    attack: Attacked | Suite
    judge: Judge
    batch_size: int
    copies: Copies

    def work(self, data: Folder, world: World, workers: int, progress: bool | None) -> None:
        """Make what is missing, or this process's share of it.

        Groups of shards are made whole, in the same batches as ever, even if some of them are there already: so the
        last digits, which may depend on the batch, do not depend on when a process was killed.
        """
        shards, size = self.copies.shards, self.batch_size
        missing = self.copies.missing()
        at_once = max(1, size * (8 if isinstance(self.attack, Suite) else 1) // shards.size)
        groups = grouped(range(shards.count), at_once)
        todo = [number for number, group in groups.items() if missing.intersection(group)]
        mine = [groups[number] for number in world.share(todo)]
        ids = [[id_ for shard in group for id_ in shards.ids(shard)] for group in mine]
        parts = [[some[start : start + size] for start in range(0, len(some), size)] for some in ids]
        read = numbered_batches(data, [part for some in parts for part in some], workers)
        correct = done = 0
        with bar(self.attack.label, sum(map(len, ids)), progress) as shown:
            for group, numbers, batches in zip(mine, ids, parts, strict=True):
                pairs = [check_pair(batch.pairs) for batch in itertools.islice(read, len(batches))]
                images, labels = (torch.cat(each) for each in zip(*pairs, strict=True))
                note = shards.folder / SUITES / f"{group[0]}.pt"
                files, records = self._made(images, labels, torch.tensor(numbers), note)
                self._write([shard for shard in group if shard in missing], numbers, labels, files, records, data)
                note.unlink(missing_ok=True)
                done, correct = done + len(numbers), correct + int(records[-1].right.sum())
                shown.advance(len(numbers), "adversarial", correct, done)

    def _write(
        self,
        group: Sequence[int],
        ids: Sequence[int],
        labels: Tensor,
        files: Tensor,
        records: Sequence[Records],
        data: Folder,
    ) -> None:
        shards = self.copies.shards
        for shard in group:
            some = shards.ids(shard)
            rows = slice(some.start - ids[0], some.stop - ids[0])
            names = [data.filename(id_) for id_ in some]
            shards.write(shard, some, labels[rows].tolist(), [each.select(rows) for each in records], names=names)
            self.copies.write(some, files[rows])

    def _made(self, images: Tensor, labels: Tensor, ids: Tensor, note: Path) -> tuple[Tensor, list[Records]]:
        """Attack images: what goes into the files, and what the model says of clean, adversarial and written images."""
        clean = self._seen(images, labels, ids)
        start = time.perf_counter()
        adversarial = self._attacked(images, labels, ids, note)
        seconds = time.perf_counter() - start
        found = self._seen(adversarial, labels, ids)
        records = [clean, dataclasses.replace(found, seconds=found.seconds + seconds)]
        threat: Any = self.attack.suite.threat if isinstance(self.attack, Suite) else self.attack.attack.threat  # type: ignore[attr-defined]
        if self.copies.form == "npy":
            shares = threat.distance(images, adversarial) / (threat.eps or 1.0)
            return adversarial, [*records, dataclasses.replace(found, seconds=0.0, more={SHARE: shares})]
        start = time.perf_counter()
        levels = to_levels(images)
        device = self.judge.device
        rounded = [
            rounded_inside(threat.name, threat.eps, some.to(device), others.to(device)).cpu()
            for some, others in zip(self._split(images), self._split(adversarial), strict=True)
        ]
        files = torch.cat(rounded)
        shares = distance(threat.name, levels, files) / (threat.eps or 1.0)
        seconds = time.perf_counter() - start
        written = self._seen(from_levels(files), labels, ids)
        return files, [*records, dataclasses.replace(written, seconds=written.seconds + seconds, more={SHARE: shares})]

    def _attacked(self, images: Tensor, labels: Tensor, ids: Tensor, note: Path) -> Tensor:
        """The adversarial images, on the CPU."""
        if isinstance(self.attack, Suite):
            note.parent.mkdir(parents=True, exist_ok=True)
            report = self.attack.run(self.model, images, labels, ids, self.judge.seed, self.batch_size, note)
            for flag in report.flags:
                warnings.warn(f"{self.attack.label}: {flag.message}", EvaluationWarning, stacklevel=2)
            assert report.adversarial is not None
            return report.adversarial.cpu()
        device = self.judge.device
        parts = [
            self.attack.change(self.model, some.to(device), classes.to(device), ImageRandom(self.judge.seed, numbers))
            for some, classes, numbers in self._batches(images, labels, ids)
        ]
        return torch.cat([part.cpu() for part in parts])

    def _seen(self, images: Tensor, labels: Tensor, ids: Tensor) -> Records:
        _, (records,) = self.judge.records(self._batches(images, labels, ids), lambda *_: None)
        return records

    def _batches(self, images: Tensor, labels: Tensor, ids: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return zip(self._split(images), self._split(labels), self._split(ids), strict=True)

    def _split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        return torch.split(tensor, self.batch_size)
