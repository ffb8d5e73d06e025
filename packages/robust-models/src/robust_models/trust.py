"""Checksums that were seen at the first download, and are required ever after."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from robust_models.cache import home, write_json
from robust_models.locking import locked


@dataclass(frozen=True, kw_only=True)
class Trusted:
    """What was recorded for an entry whose publisher gives no checksum.

    Attributes:
        sha256: checksum of the first file that was accepted.
        url: where that came from.
        date: when, ISO 8601 in UTC.
    """

    sha256: str
    url: str
    date: str


def trusted(name: str) -> Trusted | None:
    """Return what is recorded for the entry `name` in `trust.json` of the cache, None if nothing is.

    Raises:
        ValueError: if that file is damaged; nothing is trusted then.
    """
    return _read(_file()).get(name)


def trust(name: str, record: Trusted) -> None:
    """Record what is required of the entry `name` from now on, in place of an older record."""
    file = _file()
    with locked(file):  # other processes may record other entries
        records = _read(file) | {name: record}
        write_json(file, {each: asdict(value) for each, value in records.items()})


def _file() -> Path:
    return home() / "trust.json"


def _read(file: Path) -> dict[str, Trusted]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        return {name: Trusted(**record) for name, record in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}): repair it, or delete it: the next downloads then record their checksums anew"
        ) from error
