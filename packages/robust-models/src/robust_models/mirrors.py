"""Where a file can be had, in the order in which the places are tried."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from robust_models.cache import file_name
from robust_models.entry import Entry


@dataclass(frozen=True, kw_only=True)
class Source:
    """One place: exactly one of the fields is set.

    Attributes:
        url: an http or https address.
        path: a file of this machine.
        drive_id: a file on Google Drive.
    """

    url: str = ""
    path: Path | None = None
    drive_id: str = ""

    def __str__(self) -> str:
        return self.url or (str(self.path) if self.path else f"Google Drive {self.drive_id}")


def sources(entry: Entry, sha256: str | None) -> list[Source]:
    """Return the mirrors of the user, then the addresses of the entry, then Google Drive; never pages for humans.

    Mirrors stand in `ROBUST_MODELS_MIRRORS`, separated by `;`: folders or addresses, in which `{family}`, `{id}` (the
    two parts of the entry's name), `{file}` and `{sha256}` are filled in. Without any of these, `/{family}/{id}/{file}`
    is added. A mirror that asks for a checksum is left out as long as none is known.
    """
    mirrors = [text.strip() for text in os.environ.get("ROBUST_MODELS_MIRRORS", "").split(";")]
    found = [_mirror(text, entry, sha256) for text in mirrors if text and (sha256 or "{sha256}" not in text)]
    found += [_source(url) for url in entry.urls]
    if len(entry.gdrive_ids) == 1:
        found.append(Source(drive_id=entry.gdrive_ids[0]))
    return found


def _mirror(template: str, entry: Entry, sha256: str | None) -> Source:
    family, _, identity = entry.name.partition("/")
    values = {"family": family, "id": identity, "file": file_name(entry), "sha256": (sha256 or "").lower()}
    if not any(f"{{{name}}}" in template for name in values):
        template = template.rstrip("/") + "/{family}/{id}/{file}"
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(value) if "://" in template else value)
    return _source(template)


def _source(address: str) -> Source:
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        return Source(url=address)
    if scheme == "file":
        return Source(path=Path(url2pathname(urlsplit(address).path)))
    return Source(path=Path(address).expanduser())
