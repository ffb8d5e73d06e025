"""How two models differ on the same images: as a table and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from robust_bench.files import write_durably
from robust_bench.result import FRACTION, plain
from robust_bench.tables import metric_title, percent, render

FORMAT = "robust-comparison/1"


@dataclass(frozen=True, kw_only=True)
class AccuracyDifference:
    """Two models' accuracy on the same images under the same condition.

    Args:
        part: of the runs, e.g. "imagenet-c/fog-3".
        benchmark: of the part's rows.
        condition: its label.
        settings: its settings.
        count: images.
        a: accuracy of the first model.
        b: of the second.
        difference: a - b.
        low: lower end of its 95 % interval, Tango's; see `robust_bench.metrics.mcnemar`.
        high: its upper end.
        only_a: images that only the first model gets right.
        only_b: images that only the second one gets right.
        p_value: McNemar's, exact and two-sided.
        adjusted_p_value: the same by Holm and Bonferroni among all accuracies of the comparison.
    """

    part: str
    benchmark: str
    condition: str
    settings: Mapping[str, Any]
    count: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_value: float
    adjusted_p_value: float


@dataclass(frozen=True, kw_only=True)
class ScoreDifference:
    """Two models' score over the same images or conditions.

    Args:
        benchmark: of the rows.
        condition: their label.
        settings: their settings.
        metric: e.g. "mean_corruption_error".
        unit: of the values.
        count: images.
        a: of the first model.
        b: of the second.
        difference: a - b.
        low: lower end of its 95 % interval by the paired bootstrap: both models get the same resamples of the images.
        high: its upper end.
        resamples: how many.
        seed: of them.
    """

    benchmark: str
    condition: str
    settings: Mapping[str, Any]
    metric: str
    unit: str
    count: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    resamples: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs, the first minus the second. It prints as tables in per cent; everything here is a fraction.

    Args:
        a: name of the first model.
        b: of the second.
        accuracies: one for every condition that both runs have.
        scores: one for every score that both have and that can be resampled.
        left_out: what was not compared, and why.
        warnings: what makes the comparison doubtful.
    """

    a: str
    b: str
    accuracies: tuple[AccuracyDifference, ...]
    scores: tuple[ScoreDifference, ...] = ()
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return render(self.__rich__())

    def __rich__(self) -> RenderableType:
        names = dict.fromkeys(each.benchmark for each in self.accuracies)
        parts: list[RenderableType] = [self._accuracies(name) for name in names]
        parts += [self._scores()] if self.scores else []
        parts.append(Text(self._words()))
        parts += [Text(f"Warning: {text}") for text in self.warnings]
        parts += [Text(f"Left out: {text}") for text in self.left_out]
        return Group(*parts)

    def to_json(self) -> str:
        """Write everything as JSON text; `from_json` gives an equal comparison back."""
        document = {"format": FORMAT, **plain(asdict(self), "the comparison")}
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str | Path = "the text") -> Self:
        """Read what `to_json` wrote. `source` names the text in error messages.

        Raises:
            ValueError: if it is not complete JSON, or something else than a comparison of this version.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source} is not complete JSON ({error}): was its writing cut off?") from error
        version = document.pop("format", None) if isinstance(document, dict) else None
        if version != FORMAT:
            raise ValueError(f'{source} is not a comparison: "format" is {version!r}, expected {FORMAT!r}')
        try:
            return cls(
                a=document["a"],
                b=document["b"],
                accuracies=tuple(AccuracyDifference(**each) for each in document["accuracies"]),
                scores=tuple(ScoreDifference(**each) for each in document["scores"]),
                left_out=tuple(document["left_out"]),
                warnings=tuple(document["warnings"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{source} says it is {FORMAT!r} but does not have its fields: {error}") from error

    def save(self, path: str | Path) -> Path:
        """Write the comparison to a JSON file, durably."""
        return write_durably(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else; the path is named.
        """
        return cls.from_json(Path(path).read_text(encoding="utf-8"), source=path)

    def _accuracies(self, benchmark: str) -> Table:
        out = self._head(f"{benchmark}: accuracy, % (95 % interval of the difference)", "condition")
        for title in ("only a", "only b", "p", "p (Holm)", "images"):
            out.add_column(title, justify="right")
        for each in self.accuracies:
            if each.benchmark == benchmark:
                out.add_row(
                    Text(each.condition),
                    *_values(each, FRACTION),
                    f"{each.only_a}",
                    f"{each.only_b}",
                    p_text(each.p_value),
                    p_text(each.adjusted_p_value),
                    f"{each.count}",
                )
        return out

    def _scores(self) -> Table:
        out = self._head("Scores (95 % interval of the difference)", "score")
        out.add_column("images", justify="right")
        for each in self.scores:
            title = Text(f"{each.benchmark}, {each.condition}: {metric_title(each.metric, each.unit)}")
            out.add_row(title, *_values(each, each.unit), f"{each.count}")
        return out

    def _head(self, title: str, first: str) -> Table:
        out = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)
        out.add_column(first)
        for heading in (f"a: {self.a}", f"b: {self.b}", "a − b"):
            out.add_column(Text(heading), justify="right")
        return out

    def _words(self) -> str:
        words = (
            "p: McNemar's exact test; p (Holm): adjusted for the number of accuracies in this comparison, "
            f"{len(self.accuracies)}."
        )
        if self.scores:
            one = self.scores[0]
            words += f" Intervals of scores: paired bootstrap over images, {one.resamples} resamples, seed {one.seed}."
        return words


def p_text(value: float) -> str:
    """Write a p value.

    Examples:
        >>> p_text(0.03125), p_text(0.00001), p_text(1.0)
        ('0.031', '< 0.0001', '1')
    """
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def _values(each: AccuracyDifference | ScoreDifference, unit: str) -> Sequence[str]:
    """Both values, and the difference with its interval."""
    if unit == FRACTION:
        ends = f"({100.0 * each.low:+.1f} to {100.0 * each.high:+.1f})"
        return percent(each.a), percent(each.b), f"{100.0 * each.difference:+.1f} {ends}"
    return f"{each.a:.4g}", f"{each.b:.4g}", f"{each.difference:+.4g} ({each.low:+.4g} to {each.high:+.4g})"
