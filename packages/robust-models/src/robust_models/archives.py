"""One weight file out of an archive of several."""

import re
import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from robust_models.cache import partial_of
from robust_models.entry import Entry


def archive_member(entry: Entry) -> str | None:
    """Return which member of an archive the weights are, as the note of `entry` tells it; None for a plain file."""
    found = re.search(r"\barchive\b.*\bmember ([\w./+-]+)", entry.note or "")
    return found.group(1).rstrip(".") if found else None


def extract_member(archive: Path, member: str, target: Path) -> None:
    """Write the one file called `member`, in whatever folder of the archive, to `target`; nothing else is unpacked.

    Raises:
        ValueError: if the archive (zip or tar) is damaged, does not have exactly one such file, or has any member with
            an absolute path or with `..`, which an honest archive has not.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as held:
                names = [info.filename for info in held.infolist() if not info.is_dir()]
                with held.open(_find(names, held.namelist(), member, archive)) as stream:
                    _write(stream, target)
            return
        with tarfile.open(archive) as held_tar:
            names = [info.name for info in held_tar.getmembers() if info.isfile()]
            stream_or_none = held_tar.extractfile(_find(names, held_tar.getnames(), member, archive))
            assert stream_or_none is not None  # a file, by isfile
            with stream_or_none as stream:
                _write(stream, target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive} is damaged or no zip or tar archive ({error}): download it again") from error


def _find(files: list[str], names: list[str], member: str, archive: Path) -> str:
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
            raise ValueError(f"{archive} has a member {name!r} that leads out of its folder, and is refused")
    found = [name for name in files if name == member or name.endswith(f"/{member}")]
    if len(found) != 1:
        raise ValueError(f"{archive} has {len(found)} files called {member}: {', '.join(files[:10]) or 'it is empty'}")
    return found[0]


def _write(stream: IO[bytes], target: Path) -> None:
    part = partial_of(target)
    with part.open("wb") as written:
        shutil.copyfileobj(stream, written)
    part.replace(target)
