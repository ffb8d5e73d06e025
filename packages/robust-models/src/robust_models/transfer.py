"""Fetch one address into a file, going on where an earlier try was interrupted."""

import http.client
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import OpenerDirector, Request

from robust_models.cache import write_json
from robust_models.connection import PassingError, RangeError, TransferError, open_url
from robust_models.progress import Report, silent

logger = logging.getLogger(__name__)

LONGEST_WAIT = 60.0  # seconds between two tries
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Version:
    """Which version of which file a part belongs to; lies beside it as `<part>.json`.

    Attributes:
        url: what was asked for.
        etag: what the server called it, "" if it did not say.
        modified: since when the server had it, "" if it did not say.
        size: of the whole file in bytes, None if the server did not say.
        content_type: what the server took it for.
    """

    url: str
    etag: str
    modified: str
    size: int | None
    content_type: str

    @property
    def validator(self) -> str:
        """What tells a server this version from others, for `If-Range`; "" if nothing does."""
        return self.etag if self.etag.startswith('"') else self.modified  # weak tags do not promise equal bytes


def fetch(
    url: str | Callable[[], str],
    part: Path,
    connection: OpenerDirector,
    *,
    identity: str = "",
    report: Report = silent,
    sleep: Callable[[float], None] = time.sleep,
    attempts: int = 5,
) -> Version:
    """Fetch `url` into `part`, and return which version that is. What `part` holds already is not fetched again.

    A part is continued (HTTP `Range`) only if the server confirms by `If-Range` that it still has the same version;
    otherwise it starts anew. Interruptions are followed by another try after 1, 2, 4, ... seconds, or after the time
    for which the server asks.

    Args:
        url: http or https; or what finds it, which is asked before every try.
        part: grows until it is whole; its folder exists.
        connection: from `opener`.
        identity: the lasting name of the file, needed where `url` has to be found; "" means `url`.
        report: is told the bytes done and in total.
        sleep: waits for a number of seconds.
        attempts: tries without one more byte until giving up.

    Raises:
        TransferError: if nothing or only a part came; the part stays.
    """
    name = identity or str(url)
    failures, furthest = 0, 0
    while True:
        try:
            return _try(url, part, connection, name, report)
        except PassingError as error:
            held = part.stat().st_size if part.exists() else 0
            failures = 1 if held > furthest else failures + 1
            furthest = max(held, furthest)
            if failures >= attempts or error.wait > LONGEST_WAIT:
                kept = f"; {held} bytes are kept, the next call goes on from there" if held else ""
                raise TransferError(f"{error}{kept}") from error
            wait = error.wait or min(2.0 ** (failures - 1), LONGEST_WAIT)
            logger.info("%s: %s; next try in %.0f s", name, error, wait)
            sleep(wait)


def discard(part: Path) -> None:
    """Remove a part and its note."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _try(
    url: str | Callable[[], str], part: Path, connection: OpenerDirector, identity: str, report: Report
) -> Version:
    held = _held(part, identity)
    done = part.stat().st_size if held else 0
    if held and done == held.size:  # stopped between the last byte and what follows it
        return held
    request = Request(url if isinstance(url, str) else url())
    if held and done:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", held.validator)
    try:
        opened = open_url(connection, request)
    except RangeError:  # the file is shorter now
        discard(part)
        raise
    with opened as response:
        if response.status == 206 and held:
            current = _continued(response, held, done, part)
        elif response.status == 200:
            current, done = _version(response, identity), 0
            part.unlink(missing_ok=True)  # first: a note must never stand beside bytes of another version
            write_json(_note(part), asdict(current))
        else:
            raise TransferError(f"unexpected answer HTTP {response.status}")
        _receive(response, part, done, current.size, report)
    return current


def _receive(response: Any, part: Path, done: int, size: int | None, report: Report) -> None:
    """Write the body behind the first `done` bytes of the part; each block reaches the disk even if we are killed."""
    with part.open("r+b" if done else "wb", buffering=0) as stream:
        stream.seek(done)
        while True:
            report(done, size)
            try:
                block = response.read1(_BLOCK)
            except (http.client.HTTPException, OSError) as error:
                raise PassingError(f"interrupted after {done} bytes: {type(error).__name__} {error}") from error
            if not block:
                break
            stream.write(block)
            done += len(block)
        os.fsync(stream.fileno())
    if size is not None and done != size:
        raise PassingError(f"ended after {done} of {size} bytes")


def _version(response: Any, identity: str) -> Version:
    coding = response.headers.get("Content-Encoding", "identity").lower()
    if coding != "identity":
        raise TransferError(f"the server sends it compressed ({coding}), although it was asked not to")
    length = response.headers.get("Content-Length", "")
    return Version(
        url=identity,
        etag=response.headers.get("ETag", ""),
        modified=response.headers.get("Last-Modified", ""),
        size=int(length) if length.isdecimal() else None,
        content_type=response.headers.get_content_type(),
    )


def _continued(response: Any, held: Version, done: int, part: Path) -> Version:
    """The version of the part, if what comes is indeed its continuation."""
    given = response.headers.get("Content-Range", "")
    first, _, total = given.removeprefix("bytes ").partition("/")
    etag = response.headers.get("ETag", "")
    same = total == "*" or held.size is None or total == str(held.size)
    if first.partition("-")[0] != str(done) or not same or (etag and held.etag and etag != held.etag):
        discard(part)
        raise PassingError(f"the server continued another version or from elsewhere ({given}); starting anew")
    return replace(held, size=int(total)) if total.isdecimal() else held


def _held(part: Path, identity: str) -> Version | None:
    """Which version the part belongs to; None if that cannot be told, and it has to start anew."""
    with suppress(OSError, ValueError, TypeError):
        held = Version(**json.loads(_note(part).read_text(encoding="utf-8")))
        done = part.stat().st_size
        if held.url == identity and held.validator and (held.size is None or done <= held.size):
            return held
    return None


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
