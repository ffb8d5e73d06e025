"""Models beside people: cue-conflict and the other sets of model-vs-human.

Geirhos et al., "Partial success in closing the gap between human and machine vision", NeurIPS 2021, arXiv:2106.07411;
cue-conflict: Geirhos et al., ICLR 2019, arXiv:1811.12231. The files are bethgelab/model-vs-human's; their pictures have
224 x 224 pixels, and only a model of another input size gets one direct resize.

A model of ImageNet's 1000 classes decides among 16 that people know. How is a choice, `--aggregation`, that changes the
scores (a ResNet-50 has a shape bias of 21.4 % by the mean, of 22.1 % as first published), so it is part of the names of
parts and rows: "cue-conflict" by the mean, "cue-conflict-max" by the maximum.

To compare models, run the same benchmarks with the same aggregation for each, and put the runs side by side with
`robust-bench compare`. To compare a model with people, lay `raw-data` of the repository beside the sets: rows "model
and people" then tell how the model agrees with people, and rows "pairs of people" how people agree with each other.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from robust_bench.answer import EntryLevel
from robust_bench.benchmarks.data_settings import as_stored, data_settings
from robust_bench.benchmarks.entry import Entry, Options, is_there, locate
from robust_bench.benchmarks.human_answers import LEFT_OUT
from robust_bench.benchmarks.human_scores import CUE_CONFLICT, FAMILY, human_scores, part_name
from robust_bench.benchmarks.opening import opening
from robust_bench.datasets.human_responses import Response, human_responses
from robust_bench.datasets.stimuli import Stimuli
from robust_bench.datasets.stimulus import CATEGORIES, IMAGES, IN_CATEGORY_FOLDERS
from robust_bench.part import Benchmark, Part
from robust_bench.warning import EvaluationWarning

_SOURCE = "Geirhos et al., NeurIPS 2021, arXiv:2106.07411"
_ARCHIVE = "https://github.com/bethgelab/model-vs-human/releases/download/v0.1/{}.tar.gz"
_PEOPLE = (
    "People's answers, for error consistency, are the folder raw-data of github.com/bethgelab/model-vs-human, beside "
    "the sets"
)
_UNMERGED = (
    "merging has no answers of people: for scores against them give the command of the run once without --shard, which "
    "evaluates nothing again"
)
_PICTURES: Mapping[str, str] = {
    "cue-conflict": "pictures with the shape of one class and the texture of another",
    "edge": "drawings of edges",
    "silhouette": "black silhouettes",
    "sketch": "sketches",
    "stylized": "photographs in the style of paintings",
    "colour": "photographs in colour and in grey",
    "contrast": "photographs at 8 contrasts",
    "high-pass": "photographs without their low frequencies",
    "low-pass": "blurred photographs",
    "phase-scrambling": "photographs with scrambled phases",
    "power-equalisation": "photographs with equal power spectra",
    "false-colour": "photographs in opponent colours",
    "rotation": "photographs turned by quarters",
    "eidolonI": "photographs distorted coherently",
    "eidolonII": "photographs distorted less coherently",
    "eidolonIII": "photographs distorted incoherently",
    "uniform-noise": "photographs under uniform noise",
}
"""What each of the 17 sets holds."""


def _set_entry(dataset: str) -> Entry:
    """The line of one set."""
    inside = (
        "<category>/<name>.png" if dataset in IN_CATEGORY_FOLDERS
        else "dnn/session-1/<number>_<code>_dnn_<condition>_<category>_<rest>.png (dnn/session-1 may be missing)"
    )  # fmt: skip
    names = (dataset, "style-transfer-preprocessed-512") if dataset == CUE_CONFLICT else (dataset,)
    scores = "shape bias, accuracy" if dataset == CUE_CONFLICT else "OOD accuracy"
    return Entry(
        name=part_name(dataset, "mean"),
        about=f"{IMAGES[dataset]:,} {_PICTURES[dataset]}, 16 classes; {scores}, agreement with people",
        source="Geirhos et al., ICLR 2019, arXiv:1811.12231" if dataset == CUE_CONFLICT else _SOURCE,
        build=functools.partial(_build, part_name(dataset, "mean"), (dataset,)),
        scores=functools.partial(human_scores, sets=(dataset,)),
        unmerged=_UNMERGED,
        layout=f"Expected {IMAGES[dataset]:,} files DIR/{FAMILY}/{dataset}/{inside}, or the same in DIR/{dataset}; a "
        f"checkout of the repository DIR/{FAMILY}, with {dataset} in its folder datasets, will do. Get them: "
        f"{_ARCHIVE.format(dataset)}. {_PEOPLE}",
        folders=tuple(
            f"{above}{name}" for name in names for above in (f"{FAMILY}/", f"{FAMILY}/datasets/", "datasets/", "")
        ),
        fits=lambda path: path.resolve().name in names,
    )


def _build(name: str, sets: Sequence[str], options: Options) -> Benchmark:
    """Open the sets, and the answers of people where they are at hand."""
    if len(sets) > 1:
        _check_all_there(options.data)
    parts: list[Part] = []
    humans: dict[str, tuple[Response, ...]] = {}
    for dataset in sets:
        with opening(_SETS[dataset], options) as folder:
            pictures = Stimuli(folder, dataset=dataset, preprocess=as_stored(options))
            _check_count(pictures)
        parts.append(_part(pictures, options))
        if (answers := _answers_folder(pictures, options.data)) is not None:
            humans[dataset] = human_responses(answers)
            _check_answers(pictures, answers, humans[dataset])
    scores = functools.partial(human_scores, sets=tuple(sets), humans=humans)
    return Benchmark(name=name, parts=tuple(parts), scores=scores)


def _check_all_there(data: Path | None) -> None:
    """Look for all sets before any is opened.

    Raises:
        ValueError: if no folder is given.
        FileNotFoundError: if sets are missing, with their names.
    """
    missing = [dataset for dataset, entry in _SETS.items() if not is_there(entry, data)]
    if data is None or not data.is_dir():
        locate(_ALL, data)  # which says what is expected
    elif missing:
        raise FileNotFoundError(
            f"the benchmark {FAMILY!r} needs all {len(_SETS)} sets, but in {data} are not: {', '.join(missing)}. Each "
            f"set is a benchmark of its own as well, e.g. {part_name('sketch', 'mean')!r}. {_ALL.layout}"
        )


def _check_count(pictures: Stimuli) -> None:
    """Warn of a set that has not all of its pictures, or more."""
    expected = IMAGES[pictures.dataset]
    if len(pictures) != expected:
        warnings.warn(
            f"the set {pictures.dataset} is known to have {expected:,} pictures, but {len(pictures):,} are in "
            f"{pictures.path}: was it unpacked completely, and nothing else?",
            EvaluationWarning,
            stacklevel=2,
        )


def _part(pictures: Stimuli, options: Options) -> Part:
    answer = EntryLevel(aggregation=options.aggregation)
    return Part(
        name=part_name(pictures.dataset, options.aggregation),
        data=pictures,
        num_classes=len(CATEGORIES),
        answer=answer,
        settings=data_settings(
            dataset=f"{FAMILY} {pictures.dataset}",
            path=pictures.path,
            classes=len(CATEGORIES),
            treatment=pictures.preprocess,
            answer=answer.text,
            images_expected=IMAGES[pictures.dataset],
            aggregation=options.aggregation,
        ),
    )


def _answers_folder(pictures: Stimuli, data: Path | None) -> Path | None:
    """The folder of people's answers: in raw-data beside the sets or below the data; None if there is none."""
    sets = pictures.path.parent
    above = [sets, *((sets.parent,) if sets.name == "datasets" else ()), *((data,) if data else ())]
    return next((path for each in above if (path := each / "raw-data" / pictures.dataset).is_dir()), None)


def _check_answers(pictures: Stimuli, answers: Path, responses: Sequence[Response]) -> None:
    """Compare what people saw under the conditions that count with the pictures, before any time is spent on these.

    Raises:
        ValueError: if somebody saw others, with their ids.
    """
    left_out = LEFT_OUT[pictures.dataset]
    here = {(each.condition, each.id) for each in pictures.stimuli if each.condition not in left_out}
    seen: dict[str, set[tuple[str, str]]] = {}
    for each in responses:
        if each.condition not in left_out:
            seen.setdefault(each.observer, set()).add((each.condition, each.stimulus))
    for person, theirs in seen.items():
        if here != theirs:
            raise ValueError(
                f"people's answers in {answers} are not to the pictures in {pictures.path}: {person} alone has "
                f"{_some(theirs - here)}, the folder alone {_some(here - theirs)}. Take both from the same version, or "
                f"move {answers} away to go without people"
            )


def _some(pictures: set[tuple[str, str]]) -> str:
    """Name a few pictures, and how many there are."""
    named = ", ".join(f"{picture} (condition {condition})" for condition, picture in sorted(pictures)[:3])
    return f"{len(pictures)} pictures" + (f" ({named}{', ...' if len(pictures) > 3 else ''})" if pictures else "")


_SETS: Mapping[str, Entry] = {dataset: _set_entry(dataset) for dataset in _PICTURES}
_ALL = Entry(
    name=FAMILY,
    about="all 17 sets with people's answers: OOD accuracy, accuracy difference, observed and error consistency",
    source=_SOURCE,
    build=functools.partial(_build, FAMILY, tuple(_PICTURES)),
    scores=functools.partial(human_scores, sets=tuple(_PICTURES)),
    unmerged=_UNMERGED,
    layout=f"Expected one folder per set in DIR/{FAMILY} or in DIR: {', '.join(_PICTURES)}. A checkout of "
    f"github.com/bethgelab/model-vs-human with its folder datasets will do. Get each: {_ARCHIVE.format('<set>')}. "
    f"{_PEOPLE}",
    fits=lambda path: all(is_there(entry, path) for entry in _SETS.values()),
)
ENTRIES = (*_SETS.values(), _ALL)
"""Cue-conflict first, then the other sets, then all of them."""
