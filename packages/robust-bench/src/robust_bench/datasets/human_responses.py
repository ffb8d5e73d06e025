"""What people answered when they saw the pictures of the model-vs-human sets.

Geirhos et al., "Partial success in closing the gap between human and machine vision", NeurIPS 2021, arXiv:2106.07411;
the files are `raw-data/<set>/*.csv` of bethgelab/model-vs-human, one row per trial, with a header:

| column | meaning |
|---|---|
| subj | who answered: "subject-01" and so on are people, the same person in all sets; anything else is a model |
| session | number of the session, from 1 |
| trial | number of the trial within the session, from 1: the order in which this observer saw the pictures |
| rt | reaction time in seconds; NaN for models and where there was no answer |
| object_response | the answer, one of the 16 entry-level classes; "na" where a person gave none in time: wrong |
| category | the right answer; in cue-conflict that of the shape |
| condition | how the picture was changed, e.g. "c05" or "0.35"; "0" or NaN where a set has only one condition |
| imagename | number, code of the set, observer, condition, category, viewing code, and then what names the picture |

The fields before the last ones of `imagename` differ between observers, so trials are matched by `stimulus_id`. Some
files write the names of columns with capitals.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from robust_bench.datasets.stimulus import CATEGORIES, condition_name, stimulus_id

COLUMNS = ("subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename")
NO_ANSWER = "na"
PERSON = "subject"
"""How the names of people begin."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """One trial: what somebody answered to one picture.

    Args:
        observer: who answered, e.g. "subject-01".
        session: number of the session.
        trial: number of the trial.
        seconds: reaction time; None where it was not measured.
        answer: one of the 16 entry-level classes, None without an answer.
        category: the right answer.
        condition: how the picture was changed, as `condition_name` writes it.
        stimulus: id of the picture, as `stimulus_id` gives it.
    """

    observer: str
    session: int
    trial: int
    seconds: float | None
    answer: str | None
    category: str
    condition: str
    stimulus: str

    @property
    def right(self) -> bool:
        """Whether the answer is the category; no answer is wrong."""
        return self.answer == self.category


def read_responses(file: str | Path) -> tuple[Response, ...]:
    """Read the trials of one file, of a person or of a model.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing, or a row cannot be; the message says file, line and what was expected.
    """
    path = Path(file)
    return tuple(_response(path, line, row) for line, row in _rows(path))


def human_responses(folder: str | Path) -> tuple[Response, ...]:
    """Read the trials of all people of one set; the files of models that lie beside them are passed over.

    Args:
        folder: with the CSV files of the set, `raw-data/<set>`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if there are no people in it, a row cannot be, or somebody saw one picture twice under a condition.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root} of people's answers: expected <set>_subject-01_session_1.csv in it")
    found: list[Response] = []
    places: dict[tuple[str, str, str], str] = {}
    for file in sorted(root.glob("*.csv")):
        rows = _rows(file)
        for line, row in rows:
            if not row["subj"].startswith(PERSON):
                break  # a file has one observer, here a model
            response = _response(file, line, row)
            here = f"{file}, line {line}"
            place = places.setdefault((response.observer, response.condition, response.stimulus), here)
            if place != here:
                raise ValueError(
                    f"{here}: {response.observer} has answered to {response.stimulus!r} under the condition "
                    f"{response.condition} before, in {place}; keep one of the two"
                )
            found.append(response)
    if not found:
        raise ValueError(f"no answers of people in {root}: expected CSV files whose column subj begins with {PERSON!r}")
    return tuple(found)


def trials(responses: Iterable[Response]) -> dict[str, dict[str, dict[str, bool]]]:
    """Sort responses as the metrics take them: observer -> condition -> stimulus -> whether the answer is right."""
    found: dict[str, dict[str, dict[str, bool]]] = {}
    for each in responses:
        found.setdefault(each.observer, {}).setdefault(each.condition, {})[each.stimulus] = each.right
    return found


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Read the rows of a file with their lines, by the lower-case names of their columns."""
    if not file.is_file():
        raise FileNotFoundError(f"no file {file} of answers")
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text)
            header = [name.strip().lower() for name in next(reader, [])]
            if missing := [name for name in COLUMNS if name not in header]:
                raise ValueError(
                    f"{file}, line 1: no column {', '.join(missing)}: expected {','.join(COLUMNS)}, got "
                    f"{','.join(header) or 'nothing'}"
                )
            for row in reader:
                if row and len(row) != len(header):
                    raise ValueError(f"{file}, line {reader.line_num}: {len(row)} values for {len(header)} columns")
                if row:
                    yield reader.line_num, dict(zip(header, (value.strip() for value in row), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read as a CSV file in UTF-8: {error}") from error


def _response(file: Path, line: int, row: Mapping[str, str]) -> Response:
    answer, category = row["object_response"].lower(), row["category"].lower()
    for name, value, allowed in (
        ("object_response", answer, (*CATEGORIES, NO_ANSWER)),
        ("category", category, CATEGORIES),
    ):
        if value not in allowed:
            raise ValueError(f"{file}, line {line}: {name} is {row[name]!r}, expected one of {', '.join(allowed)}")
    try:
        seconds, session, trial = float(row["rt"]), int(row["session"]), int(row["trial"])
    except ValueError as error:
        raise ValueError(
            f"{file}, line {line}: expected whole numbers of session and trial and a reaction time in seconds or NaN, "
            f"got {row['session']!r}, {row['trial']!r} and {row['rt']!r}"
        ) from error
    if not row["subj"] or not row["imagename"]:
        raise ValueError(f"{file}, line {line}: subj and imagename must not be empty")
    return Response(
        observer=row["subj"],
        session=session,
        trial=trial,
        seconds=seconds if math.isfinite(seconds) else None,
        answer=None if answer == NO_ANSWER else answer,
        category=category,
        condition=condition_name(row["condition"]),
        stimulus=stimulus_id(row["imagename"]),
    )
