"""What lies in a run folder: the results of one or several models, and figures."""

import base64
import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from robust_bench.files import sha256
from robust_bench.result import Result

RESULT_FILE = "result.json"
FIGURES_FORMAT = "robust-figures/1"
_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One picture with its words.

    Args:
        title: a short heading.
        caption: what is shown, with model, settings and seed.
        alt: the picture in words, for readers who do not see it.
        source: the picture itself as a `data:` address.
        stale: whether it was drawn from results that are gone or have changed since.
    """

    title: str
    caption: str
    alt: str
    source: str
    stale: bool = False


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run folder, read.

    It holds `result.json` of one model, or `<model>/result.json` of several, one level down; and `figures/` with
    `figures/index.json` once `robust-viz figures` was there.

    Args:
        path: the folder.
        results: the folder's own first, then those below in the order of their folders' names. Where several models
            have the same name, that of the folder is appended, as in "robust (b)".
        figures: in the order of the index.
    """

    path: Path
    results: tuple[Result, ...]
    figures: tuple[Figure, ...]

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a run folder.

        Raises:
            FileNotFoundError: if there is no such folder, no result in it, or a figure is listed that is not there.
            ValueError: if a result or the index of the figures is damaged; the file is named.
        """
        files = result_files(path)
        results = [Result.load(file) for file in files]
        return cls(path=Path(path), results=distinct(results, files), figures=figures_of(path))


def result_files(path: str | Path) -> tuple[Path, ...]:
    """Find the results in a run folder: its own first, then those below in the order of their folders' names.

    Raises:
        FileNotFoundError: if there is no such folder, or no result in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"no run folder {folder}: `robust-bench run --out {folder}` writes one")
    below = sorted(folder.glob(f"*/{RESULT_FILE}"), key=lambda file: file.parent.name)
    files = tuple(file for file in (folder / RESULT_FILE, *below) if file.is_file())
    if not files:
        raise FileNotFoundError(
            f"no results in {folder}: expected {folder / RESULT_FILE}, or <model>/{RESULT_FILE} below it"
        )
    return files


def distinct(results: Sequence[Result], files: Sequence[Path]) -> tuple[Result, ...]:
    """Give models of the same name that of their folder as well, as in "robust (b)".

    Where that is the same too, the folders above it come along, as in "robust (x/b)".

    Raises:
        ValueError: if a file is there twice.
    """
    if len(set(files)) < len(files):
        raise ValueError("a result file is there twice: name every run folder once")
    named = list(results)
    while twins := [name for name, count in collections.Counter(each.model for each in named).items() if count > 1]:
        for name in twins:
            positions = [position for position, each in enumerate(named) if each.model == name]
            labels = _tails([files[position].parent.absolute().parts for position in positions])
            for position, label in zip(positions, labels, strict=True):
                named[position] = dataclasses.replace(named[position], model=f"{name} ({label})")
    return tuple(named)


def _tails(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """The fewest last parts of different paths that tell them apart."""
    length = 1
    while len({path[-length:] for path in paths}) < len(paths) and length < max(map(len, paths)):
        length += 1
    return ["/".join(path[-length:]) for path in paths]


def figures_of(path: str | Path) -> tuple[Figure, ...]:
    """Read the figures that lie in a run folder.

    Raises:
        FileNotFoundError: if one is listed that is not there.
        ValueError: if their index is damaged.
    """
    return _figures(Path(path) / "figures")


def _figures(folder: Path) -> tuple[Figure, ...]:
    index = folder / "index.json"
    if not index.is_file():
        return ()
    try:
        document: Any = json.loads(index.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{index} is not complete JSON ({error}): run `robust-viz figures` again") from error
    version = document.get("format") if isinstance(document, dict) else None
    if version != FIGURES_FORMAT:
        raise ValueError(f'{index} is not an index of figures: "format" is {version!r}, expected {FIGURES_FORMAT!r}')
    try:
        return tuple(
            Figure(
                title=str(entry["title"]),
                caption=str(entry["caption"]),
                alt=str(entry["alt"]),
                source=_embed(folder, str(entry["file"])),
                stale=_is_stale(folder.parent, entry.get("inputs")),
            )
            for entry in document["figures"]
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} lacks a field of a figure ({error}): run `robust-viz figures` again") from error


def _is_stale(run: Path, inputs: object) -> bool:
    """Tell whether a result that a figure was drawn from is gone or has changed.

    `inputs` maps paths of result files, relative to the run folder, to the SHA-256 of their bytes; where it is
    something else, the figure does not come from results.
    """
    if not isinstance(inputs, Mapping):
        return False
    return any(not (run / name).is_file() or sha256(run / name) != digest for name, digest in inputs.items())


def _embed(folder: Path, name: str) -> str:
    path = folder / name
    if path.suffix not in _MEDIA_TYPES:
        raise ValueError(f"cannot embed {path}: expected one of {', '.join(_MEDIA_TYPES)}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the figure {name!r} lies outside of {folder}")
    if not path.is_file():
        raise FileNotFoundError(f"the figure {path} is listed but not there: run `robust-viz figures` again")
    return f"data:{_MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
