"""The benchmarks that one data set has: clean, corrupted here, and attacked."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from robust_bench.benchmarks.entry import Entry, Options
from robust_bench.conditions import Condition, Corrupted
from robust_bench.corruptions import CORRUPTIONS, available, preset_for
from robust_bench.part import Benchmark, Part, Scores, image_shape
from robust_bench.tables import eps_text

_SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A data set, and what its benchmarks have in common.

    Args:
        name: of the data set.
        about: the data in a few words.
        source: where they come from.
        part: makes the part of the clean images.
        eps: of the sweep of PGD, in units of [0, 1] pixels, Linf.
        autoattack_eps: of AutoAttack, Linf.
        generated: how the benchmark of corruptions that are made here is called.
        generated_scores: over all of them.
        stem: of the names of the benchmarks under attack; None means the name.
        layout: see `Entry`.
        folders: see `Entry`.
        fits: see `Entry`.
    """

    name: str
    about: str
    source: str
    part: Callable[[Options], Part]
    eps: tuple[float, ...]
    autoattack_eps: float
    generated: str
    generated_scores: Scores | None = None
    stem: str | None = None
    layout: str | None = None
    folders: tuple[str, ...] = ()
    fits: Callable[[Path], bool] | None = None

    def entries(self) -> tuple[Entry, ...]:
        """All lines of the list."""
        return (self.clean(), self.corrupted(), self.swept(), self.autoattacked())

    def clean(self) -> Entry:
        """The line of the images as they are."""
        return self._entry(
            self.name,
            f"{self.about}; accuracy on the clean images",
            lambda options: Benchmark(name=self.name, parts=(self.part(options),)),
        )

    def corrupted(self) -> Entry:
        """The line of the images with corruptions that are made here."""

        def conditions(_: Options, side: int) -> tuple[Condition, ...]:
            preset = preset_for(side, side)
            return tuple(
                Corrupted(corruption=corruption, severity=severity, preset=preset)
                for corruption in available(side, side)
                for severity in _SEVERITIES
            )

        return self._entry(
            self.generated,
            f"the same under the {len(CORRUPTIONS)} corruptions that the size allows, at severities 1 to 5, made here",
            lambda options: self._under(self.generated, options, conditions, self.generated_scores),
            self.generated_scores,
        )

    def swept(self) -> Entry:
        """The line of the images under PGD."""
        name = f"{self.stem or self.name}-pgd"
        return self._entry(
            name,
            "the same under PGD-20 with 3 restarts at several eps",
            lambda options: self._under(name, options, lambda chosen, _: chosen.attack.conditions(self.eps)),
        )

    def autoattacked(self) -> Entry:
        """The line of the images under AutoAttack."""
        name = f"{self.stem or self.name}-autoattack"
        return self._entry(
            name,
            f"the same under AutoAttack standard at eps {eps_text(self.autoattack_eps)}",
            lambda options: self._under(
                name, options, lambda chosen, _: (chosen.autoattack.condition(self.autoattack_eps),)
            ),
        )

    def _under(
        self,
        name: str,
        options: Options,
        conditions: Callable[[Options, int], tuple[Condition, ...]],
        scores: Scores | None = None,
    ) -> Benchmark:
        """The clean part, which the data set's benchmarks share, and the same images under conditions."""
        clean = self.part(options)
        side = image_shape(clean)[-1]
        changed = dataclasses.replace(clean, name=name, benchmark=clean.label, conditions=conditions(options, side))
        return Benchmark(name=name, parts=(clean, changed), scores=scores)

    def _entry(
        self, name: str, about: str, build: Callable[[Options], Benchmark], scores: Scores | None = None
    ) -> Entry:
        return Entry(
            name=name,
            about=about,
            source=self.source,
            build=build,
            scores=scores,
            layout=self.layout,
            folders=self.folders,
            fits=self.fits,
        )
