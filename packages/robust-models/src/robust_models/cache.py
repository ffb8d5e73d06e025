"""Where downloaded weights lie, and the note beside each file of where it came from."""

import json
import os
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from robust_models.entry import Entry

_TRUE = {"1", "true", "yes", "on"}


def home() -> Path:
    """Return the folder of the cache: `ROBUST_MODELS_HOME`, else `robust-models` in the user's cache folder."""
    chosen = os.environ.get("ROBUST_MODELS_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "robust-models"


def is_set(variable: str) -> bool:
    """Whether an environment variable says yes: 1, true, yes or on."""
    return os.environ.get(variable, "").strip().lower() in _TRUE


def offline() -> bool:
    """Whether the network is forbidden, by `ROBUST_MODELS_OFFLINE` or `HF_HUB_OFFLINE`."""
    return is_set("ROBUST_MODELS_OFFLINE") or is_set("HF_HUB_OFFLINE")


def file_name(entry: Entry) -> str:
    """Return the name of the published file: the end of its address, else the end of the entry's name and `.pt`."""
    ends = (unquote(urlsplit(url).path).rpartition("/")[2] for url in entry.urls)
    return next((end for end in ends if re.fullmatch(r"\w[\w.+-]*\.\w+", end)), f"{entry.name.rpartition('/')[2]}.pt")


def place(entry: Entry) -> Path:
    """Return where the published file lies once it is there: `<family>/<id>/<file>` in the cache."""
    return home().joinpath(*entry.name.split("/"), file_name(entry))


def partial_of(file: Path) -> Path:
    """Return where `file` grows until it is whole."""
    return file.with_name(f"{file.name}.part")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a file of the cache came from; lies beside it as `<file>.json`.

    Attributes:
        url: its address, or its path where it was put in place by hand.
        size: in bytes.
        sha256: its checksum.
        etag: what the server called this version, "" if it did not say.
        date: when it was accepted, ISO 8601 in UTC.
    """

    url: str
    size: int
    sha256: str
    etag: str
    date: str

    def write(self, file: Path) -> None:
        """Note it beside `file`."""
        write_json(_note(file), asdict(self))

    @classmethod
    def read(cls, file: Path) -> "Origin | None":
        """Return what is noted beside `file`, None if nothing readable is."""
        try:
            return cls(**json.loads(_note(file).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def _note(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def write_json(file: Path, content: Any) -> None:
    """Write `content` as JSON; the file appears only when it is complete, in the place of an older one."""
    write_whole(file, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def write_whole(file: Path, content: bytes) -> None:
    """Write `content`; the file appears only when it is complete, in the place of an older one."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
