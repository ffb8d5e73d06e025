"""Every check that a file has to pass before it counts as published weights."""

from pathlib import Path

from robust_models.archives import archive_member
from robust_models.entry import Entry
from robust_models.file_kinds import check_kind
from robust_models.trust import Trusted
from robust_models.weight_files import check_file

_PAGES = ("text/html", "application/xhtml+xml")


def acceptable(path: Path, entry: Entry, recorded: Trusted | None, content_type: str = "") -> str:
    """Return the sha256 of a file that may be used as the weights of `entry`.

    Args:
        path: the file, under whatever name.
        entry: what it should be.
        recorded: what was seen of it before, for entries without a published checksum.
        content_type: what the server took it for.

    Raises:
        ValueError: if it is a web page, no weight file, cut short, or has another checksum.
    """
    if content_type in _PAGES:
        raise ValueError(f"{path} is a web page ({content_type}) and not a weight file: open the address in a browser")
    sha256 = check_file(path, entry.sha256)
    known = bool(entry.sha256 or entry.sha256_prefix or recorded)  # compared with its own above or below
    check_kind(path, archive=archive_member(entry) is not None, known=known)
    if entry.sha256_prefix and not sha256.startswith(entry.sha256_prefix.lower()):
        raise ValueError(f"{path} has sha256 {sha256}, which should begin with {entry.sha256_prefix}")
    if recorded and sha256 != recorded.sha256:
        raise ValueError(
            f"{path} has sha256 {sha256}, and {recorded.sha256} was recorded for {entry.name} on {recorded.date} "
            f"(from {recorded.url}): pass retrust=True (--retrust) only if you know why the file changed"
        )
    return sha256
