"""Curves of accuracy over the strength of an attack."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from robust_viz import style
from robust_viz._text import fit
from robust_viz.results import Record, Row, Source, read_all

WIDTH = 6.2  # inches
NOT_THE_METHOD = frozenset({"kind", "eps", "step_size", "norm"})  # what may change along one curve, or is stated apart


@dataclass(frozen=True, kw_only=True)
class AccuracyCurve:
    """Accuracy of one model under one attack at growing eps, from eps 0, the clean accuracy, if that was measured.

    Attributes:
        model: its name.
        benchmark: the data set.
        attack: the attack and its settings, as "PGD, 20 steps, 3 restarts".
        norm: "Linf", "L2" or "L1".
        eps: strengths in units of [0, 1] pixels, ascending.
        accuracy: fractions in [0, 1], one per eps.
        low: lower ends of the confidence intervals; None where unknown.
        high: upper ends; None where unknown.
    """

    model: str
    benchmark: str
    attack: str
    norm: str
    eps: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    @property
    def signs_of_masking(self) -> tuple[str, ...]:
        """Why the attack may have failed rather than the model stood, in words; empty if nothing is suspicious.

        A stronger attacker can do all that a weaker one can, so accuracy never truly rises with eps, and at Linf
        eps 1 every image is within reach. Athalye, Carlini, Wagner, "Obfuscated gradients give a false sense of
        security", ICML 2018, arXiv:1802.00420, section 3.1.
        """
        signs = []
        for i, ceiling in enumerate(self.high):
            later = [j for j in range(i + 1, len(self.eps)) if ceiling is not None and self.accuracy[j] > ceiling]
            if later:
                j = later[0]
                signs.append(
                    f"accuracy rises from {self.accuracy[i]:.1%} at eps {self.eps[i]:.3g} to {self.accuracy[j]:.1%} at "
                    f"eps {self.eps[j]:.3g}"
                )
                break
        if self.norm == "Linf" and self.eps[-1] >= 1 and self.accuracy[-1] > 0:
            signs.append(f"accuracy is still {self.accuracy[-1]:.1%} at eps {self.eps[-1]:.3g}, where it must be 0")
        return tuple(signs)


def accuracy_curves(results: Source | Sequence[Source]) -> tuple[AccuracyCurve, ...]:
    """Collect the attacks of results into curves: one per model, benchmark, norm and attack with equal settings.

    Args:
        results: run folders, paths or contents of `result.json` files, or `robust_bench.Result` objects.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if a result cannot be read.
    """
    records = read_all(results)
    methods: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in (row for record in records for row in record.rows if _is_attack(row.settings)):
        methods.setdefault((row.benchmark, row.settings["norm"]), []).append(_settings_of(row.settings))
    curves = []
    for record in records:
        groups: dict[tuple[str, str, str], dict[float, Row]] = {}
        for row in record.rows:
            if _is_attack(row.settings):
                place = row.benchmark, row.settings["norm"]
                key = *place, _method(_settings_of(row.settings), methods[place])
                groups.setdefault(key, {})[float(row.settings["eps"])] = row
        clean = {row.benchmark: row for row in record.rows if row.settings.get("kind") == "clean"}
        for (benchmark, norm, attack), rows in groups.items():
            points = rows | ({0.0: clean[benchmark]} if benchmark in clean else {})
            curves.append(_curve(record, benchmark, norm, attack, points))
    return tuple(curves)


def accuracy_vs_eps(
    results: Source | Sequence[Source],
    *,
    norm: str | None = None,
    benchmark: str | None = None,
    title: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Draw robust accuracy over eps, with confidence bands, for several models.

    Lines start at eps 0, the clean accuracy, where it was measured. A colour is a model, a line style an attack. The
    lower axis counts in units of [0, 1] pixels, the upper one in 255ths (not for L1). What looks like gradient masking
    is told by `accuracy_curves(results)[i].signs_of_masking`, and in the captions that `write_figures` writes.

    Args:
        results: run folders, paths or contents of `result.json` files, or `robust_bench.Result` objects.
        norm: "Linf", "L2" or "L1"; needed only if the results have several.
        benchmark: the data set; needed only if the results have several.
        title: what stands above; None names benchmark and norm.
        axes: draw into these, with a legend inside, instead of a new figure.

    Raises:
        FileNotFoundError: if a path does not exist.
        TypeError: if `axes` is something else than the axes of a figure.
        ValueError: if there is nothing to draw, or more than one figure's worth.
    """
    records = read_all(results)
    curves = _choose(accuracy_curves(records), norm, benchmark)
    colours = style.model_colours(record.model for record in records)
    markers = style.model_markers(record.model for record in records)
    attacks = list(dict.fromkeys(curve.attack for curve in curves))
    strokes: dict[str, Any] = dict(zip(attacks, itertools.cycle(style.LINE_STYLES), strict=False))
    entries = _legend_entries(list(dict.fromkeys(curve.model for curve in curves)), colours, markers, strokes)
    columns = style.legend_columns([str(entry.get_label()) for entry in entries], WIDTH, 4)
    height = 3.7 + 0.19 * math.ceil(len(entries) / columns)
    figure = style.new_figure(WIDTH, height) if axes is None else style.figure_of(axes)
    target = figure.add_subplot() if axes is None else axes
    for curve in curves:
        target.plot(
            curve.eps,
            curve.accuracy,
            color=colours[curve.model],
            linestyle=strokes[curve.attack],
            label=f"{curve.model}, {curve.attack}",
            clip_on=False,
            zorder=3,
            **_line(markers[curve.model]),
        )
        points = zip(curve.eps, curve.low, curve.high, strict=True)
        band = [(eps, low, high) for eps, low, high in points if low is not None and high is not None]
        if band:
            target.fill_between(
                [eps for eps, _, _ in band],
                [low for _, low, _ in band],
                [high for _, _, high in band],
                color=colours[curve.model],
                alpha=0.18,
                linewidth=0,
                zorder=2,
            )
    _dress(target, curves, attacks, title)
    look: dict[str, Any] = {"fontsize": style.SMALL, "labelcolor": style.INK, "frameon": False}
    if axes is not None:
        target.legend(handles=entries, **look)
        return figure
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, **look)
    return style.settle(figure)


def _line(marker: str) -> dict[str, Any]:
    return {"linewidth": 1.8, "marker": marker, "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.6}


def _legend_entries(
    models: Sequence[str], colours: Mapping[str, str], markers: Mapping[str, str], strokes: Mapping[str, Any]
) -> list[Line2D]:
    """One entry per model, and if there are several attacks, one for the line style of each."""
    entries = [Line2D([], [], color=colours[model], label=_label(model), **_line(markers[model])) for model in models]
    if len(strokes) > 1:
        entries += [
            Line2D([], [], color=style.GREY, linestyle=stroke, linewidth=1.8, label=_label(attack))
            for attack, stroke in strokes.items()
        ]
    return entries


def _label(name: str) -> str:
    return fit(name, WIDTH - 0.8, style.SMALL, lines=1)


def describe(curves: Iterable[AccuracyCurve]) -> str:
    """Signs of gradient masking in words, one sentence per curve; "" if there are none."""
    return " ".join(
        f"Possible gradient masking for {curve.model} ({curve.attack}): {'; '.join(curve.signs_of_masking)}."
        for curve in curves
        if curve.signs_of_masking
    )


def _dress(axes: Axes, curves: Sequence[AccuracyCurve], attacks: Sequence[str], title: str | None) -> None:
    norm, benchmark = curves[0].norm, curves[0].benchmark
    under = f" under {attacks[0]}" if len(attacks) == 1 and len(attacks[0]) < 40 else ""
    axes.set_xlabel(f"{norm} eps (pixels in [0, 1])")
    axes.set_ylabel("accuracy")
    title = f"Accuracy on {benchmark}{under}" if title is None else title
    axes.set_title(fit(title, WIDTH - 1, style.LARGE))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_ylim(0, 1)
    axes.set_xlim(0, max(curve.eps[-1] for curve in curves) or 1)  # all at eps 0 would be no width at all
    style.tidy(axes, grid=True)
    if norm in ("Linf", "L2"):
        upper = axes.secondary_xaxis("top", functions=(_to_levels, _from_levels))
        upper.set_xlabel(f"{norm} eps in 1/255", fontsize=style.SMALL, color=style.GREY)
        upper.tick_params(labelsize=style.SMALL, colors=style.GREY, length=3, width=0.8)
        upper.spines["top"].set_visible(False)


def _to_levels(eps: Any) -> Any:
    return eps * 255


def _from_levels(levels: Any) -> Any:
    return levels / 255


def _choose(curves: Sequence[AccuracyCurve], norm: str | None, benchmark: str | None) -> tuple[AccuracyCurve, ...]:
    if not curves:
        raise ValueError(
            "no row of the results is an attack with an eps: evaluate with Attacked(attack=...) conditions"
        )
    chosen = [c for c in curves if norm in (None, c.norm) and benchmark in (None, c.benchmark)]
    for what, given, values in (
        ("norm", norm, {c.norm for c in (chosen or curves)}),
        ("benchmark", benchmark, {c.benchmark for c in (chosen or curves)}),
    ):
        if not chosen and given is not None and given not in values:
            raise ValueError(f"no attack has the {what} {given!r}: there are {', '.join(sorted(values))}")
        if chosen and len(values) > 1:
            raise ValueError(f"the results have several {what}s: choose one of {', '.join(sorted(values))}")
    if not chosen:
        raise ValueError(f"no attack has norm {norm!r} and benchmark {benchmark!r} at once")
    return tuple(chosen)


def _curve(record: Record, benchmark: str, norm: str, attack: str, points: Mapping[float, Row]) -> AccuracyCurve:
    eps = tuple(sorted(points))
    return AccuracyCurve(
        model=record.model,
        benchmark=benchmark,
        attack=attack,
        norm=norm,
        eps=eps,
        accuracy=tuple(points[e].value for e in eps),
        low=tuple(points[e].low for e in eps),
        high=tuple(points[e].high for e in eps),
    )


def _is_attack(settings: Mapping[str, Any]) -> bool:
    """Whether a row is a point of a curve: an attack within a norm at an eps."""
    eps = settings.get("eps")
    number = isinstance(eps, int | float) and not isinstance(eps, bool)
    return settings.get("kind") == "attack" and number and isinstance(settings.get("norm"), str)


def _settings_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """What must agree along a curve, as text."""
    return {key: json.dumps(settings[key], sort_keys=True) for key in sorted(settings.keys() - NOT_THE_METHOD)}


def _method(settings: Mapping[str, str], all_settings: Sequence[Mapping[str, str]]) -> str:
    """Name an attack as evaluations do, "PGD-20 × 3", with whatever else tells it from another of that name."""

    def short(method: Mapping[str, str]) -> str:
        steps, restarts = method.get("steps"), method.get("restarts", "1")
        name = method.get("attack", '"attack"').strip('"')
        return f"{name}{f'-{steps}' if steps else ''}{f' × {restarts}' if restarts != '1' else ''}"

    name = short(settings)
    namesakes = [method for method in all_settings if short(method) == name]
    telling = [key for key in settings if any(method.get(key) != settings[key] for method in namesakes)]
    return ", ".join([name, *(f"{key} {settings[key].strip(chr(34))}" for key in telling)])
