"""Bring published weights into the cache: found again, fetched, checked, and only then under their name."""

import logging
import shutil
import warnings
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from robust_models.acceptance import acceptable
from robust_models.archives import archive_member, extract_member
from robust_models.cache import Origin, offline, partial_of, place
from robust_models.connection import TransferError, opener
from robust_models.entry import Entry
from robust_models.google_drive import PageError, direct_address, fetch_with_gdown, has_gdown, page_address
from robust_models.licences import check_licence
from robust_models.locking import locked
from robust_models.mirrors import Source, sources
from robust_models.progress import Report, on_terminal, silent
from robust_models.transfer import Version, discard, fetch
from robust_models.trust import Trusted, trust, trusted

logger = logging.getLogger(__name__)


class DownloadError(OSError):
    """No source gave an acceptable file; the message tells what each one gave."""


def download(
    entry: Entry,
    *,
    accept_license: bool = False,
    allow_http: bool = False,
    retrust: bool = False,
    progress: bool = True,
) -> Path:
    """Return the path of the file of `entry` in the cache, fetching it if it is not there.

    The file lies at `<family>/<id>/<file>` under `ROBUST_MODELS_HOME` (else the cache folder of the user), with
    `<file>.json` beside it. Two processes that want it at once fetch it once. An interrupted download goes on where it
    stopped, also in the next call. A file is checked before it gets its name, and again at every call: its length, that
    it is no web page, its kind, and its sha256. Where the publisher gives no sha256, the first file that is accepted
    decides it: `trust.json` records it, and another file is refused from then on. A bad file is set aside as
    `<file>.bad`, in place of an older one, and never used.

    Args:
        entry: from `get_entry` or `list_models`.
        accept_license: accept a licence that forbids commercial use.
        allow_http: fetch over http, where anyone on the way may change the file, even if its sha256 is not known.
        retrust: forget the sha256 that was recorded for this entry, and record the one of the file as it is now.
        progress: show how far it is, if stderr is a terminal.

    Raises:
        PermissionError: if the licence has to be accepted.
        FileNotFoundError: if the file is not in the cache and there is no source, or the network is forbidden
            (`ROBUST_MODELS_OFFLINE=1`); the message says where to put it by hand.
        ValueError: if the file in the cache is bad, or the entry consists of several files.
        DownloadError: if no source gave an acceptable file.
    """
    check_licence(entry, accept_license)
    file, member = place(entry), archive_member(entry)
    recorded = None if retrust or entry.sha256 else trusted(entry.name)
    with locked(file):
        if file.is_file():
            _admit_cached(file, entry, recorded, retrust)
        else:
            report = on_terminal(entry.name) if progress else silent
            _fetch_from_any(file, entry, recorded, allow_http, report)
        if member is None:
            return file
        unpacked = file.parent / "member" / member.rpartition("/")[2]  # the archive may have the same name
        unpacked.parent.mkdir(exist_ok=True)
        extract_member(file, member, unpacked)
        return unpacked


def _admit_cached(file: Path, entry: Entry, recorded: Trusted | None, retrust: bool) -> None:
    """Check a file that lies in the cache, whether we or the user put it there."""
    origin = Origin.read(file)
    required = recorded
    if origin and not (recorded or retrust or entry.sha256):  # trust.json is gone
        required = Trusted(sha256=origin.sha256, url=origin.url, date=origin.date)
    try:
        sha256 = acceptable(file, entry, required)
    except ValueError as error:
        bad = _set_aside(file, file)
        raise ValueError(f"{error}. It is now {bad}; the next call downloads it anew") from error
    if origin and origin.sha256 != sha256:
        origin = None
    if origin is None or (recorded is None and entry.sha256 is None):
        _record(file, entry, sha256, origin.url if origin else str(file), origin.etag if origin else "", file)


def _fetch_from_any(file: Path, entry: Entry, recorded: Trusted | None, allow_http: bool, report: Report) -> None:
    """Put the file in place from the first source that gives an acceptable one."""
    known = recorded.sha256 if recorded else entry.sha256
    places = [source for source in sources(entry, known) if source.path or not offline()]
    where = ", ".join([*entry.urls, *map(page_address, entry.gdrive_ids), *entry.share_pages]) or "its authors"
    by_hand = f"get it by hand from {where} and put it at {file}"
    if len(entry.gdrive_ids) > 1 and not entry.urls:
        raise ValueError(
            f"{entry.name} consists of {len(entry.gdrive_ids)} files, and only single files are downloaded"
        )
    if not places:
        why = (
            "the network is forbidden (ROBUST_MODELS_OFFLINE)" if offline() else "it has no address of the file itself"
        )
        raise FileNotFoundError(f"{entry.name} is not in the cache and {why}: {by_hand}")
    part, failed = partial_of(file), []
    for source in places:
        try:
            version = _fetch(source, part, allow_http, known, report)
            sha256 = acceptable(part, entry, recorded, version.content_type)
        except TransferError as error:
            failed.append(f"{source}: {error}")
        except ValueError as error:
            bad = _set_aside(part, file)
            failed.append(f"{source}: {error} (kept as {bad})")
        else:
            _record(part, entry, sha256, version.url, version.etag, file)
            part.replace(file)
            discard(part)
            return
        logger.warning("%s", failed[-1])
    raise DownloadError(f"{entry.name} could not be downloaded; {by_hand} or try again later.\n" + "\n".join(failed))


def _fetch(source: Source, part: Path, allow_http: bool, known: str | None, report: Report) -> Version:
    """Fill the part from one source."""
    if source.path:
        return _copy(source.path, part)

    def permitted(url: str) -> None:
        scheme = urlsplit(url).scheme
        if scheme == "https" or (scheme == "http" and known):
            return
        if scheme != "http" or not allow_http:
            raise TransferError(
                f"{url} is not https, so anyone on the way may change the file, and its sha256 is not known: "
                "pass allow_http=True (--allow-http) to fetch it all the same"
            )
        warnings.warn(f"{url} is not https and its sha256 is not known: nothing proves what arrives", stacklevel=2)

    connection = opener(permitted)
    if not source.drive_id:
        return fetch(source.url, part, connection, report=report)
    identity = page_address(source.drive_id)
    try:
        address = partial(direct_address, source.drive_id, connection)  # differs from time to time
        return fetch(address, part, connection, identity=identity, report=report)
    except PageError as error:
        if not has_gdown():
            raise
        logger.info("%s: %s; trying gdown", source, error)
        discard(part)
        fetch_with_gdown(source.drive_id, part)
        return Version(url=identity, etag="", modified="", size=None, content_type="")


def _copy(path: Path, part: Path) -> Version:
    discard(part)  # what was begun elsewhere must not be taken up with these bytes
    try:
        shutil.copyfile(path, part)
    except OSError as error:
        raise TransferError(error.strerror or str(error)) from error
    return Version(url=str(path), etag="", modified="", size=None, content_type="")


def _record(path: Path, entry: Entry, sha256: str, url: str, etag: str, file: Path) -> None:
    """Write down where the file `path`, which is or will be `file`, came from, and require it from now on."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    if entry.sha256 is None:
        trust(entry.name, Trusted(sha256=sha256, url=url, date=date))
    Origin(url=url, size=path.stat().st_size, sha256=sha256, etag=etag, date=date).write(file)


def _set_aside(path: Path, file: Path) -> Path:
    """Take a bad file out of the way, but let the user look at it."""
    bad = file.with_name(f"{file.name}.bad")
    path.replace(bad)
    discard(partial_of(file))
    return bad
