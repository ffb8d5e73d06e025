"""Hash the files of the cache again."""

from dataclasses import dataclass
from pathlib import Path

from robust_models.acceptance import acceptable
from robust_models.cache import Origin, place
from robust_models.entry import Entry
from robust_models.trust import trusted


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found of one entry.

    Attributes:
        name: of the entry.
        file: where its file lies.
        sha256: of the file as it is now, None if it is bad.
        problem: what is wrong with it, "" if nothing is.
    """

    name: str
    file: Path
    sha256: str | None
    problem: str


def verify(entry: Entry) -> Verified | None:
    """Check the cached file of `entry` as `download` does, but change nothing; None if it is not in the cache."""
    file = place(entry)
    if not file.is_file():
        return None
    try:
        sha256 = acceptable(file, entry, None if entry.sha256 else trusted(entry.name))
    except ValueError as error:
        return Verified(name=entry.name, file=file, sha256=None, problem=str(error))
    origin, problem = Origin.read(file), ""
    if not (entry.sha256 or trusted(entry.name) or origin):
        problem = f"{file} has sha256 {sha256}, and nothing to compare it with: `robust-models download` records it"
    elif origin and origin.sha256 != sha256:
        problem = f"{file} has sha256 {sha256}, and {origin.sha256} when it was downloaded on {origin.date}"
    return Verified(name=entry.name, file=file, sha256=sha256, problem=problem)
