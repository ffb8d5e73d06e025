"""Files that are either complete or not there."""

import hashlib
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

_OLD = 3600.0  # seconds


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_folder(path: Path) -> None:
    """Make sure, before long work, that `path` is a folder or can become one.

    Raises:
        NotADirectoryError: if it, or what should hold it, is a file.
    """
    nearest = next((each for each in (path, *path.absolute().parents) if each.exists()), path)
    if nearest.exists() and not nearest.is_dir():
        raise NotADirectoryError(f"{path} cannot be a folder, since {nearest} is a file: choose another --out")


def write_durably(path: Path, content: str | bytes | Iterable[bytes], *, unfinished: Path | None = None) -> Path:
    """Write text (as UTF-8), bytes, or pieces of bytes; a crash leaves the old content or the new one, never a part.

    The content goes to a temporary file, is flushed to the disk and renamed over the target. Missing folders are made.

    Args:
        path: of the file.
        content: of the file.
        unfinished: folder of the temporary file, on the same disk; by default that of the target. A process that is
            killed leaves its temporary file there.

    Raises:
        OSError: if the folder cannot be written; the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder_of_part = unfinished or path.parent
    folder_of_part.mkdir(parents=True, exist_ok=True)
    temporary = folder_of_part / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("wb") as file:
            match content:
                case str():
                    file.write(content.encode())
                case bytes():
                    file.write(content)
                case _:
                    file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself is durable only once the folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files from a folder of unfinished ones that nobody has written to for an hour.

    Younger ones may be those that another process is writing now.
    """
    for file in folder.glob(".*.tmp"):
        try:
            if time.time() - file.stat().st_mtime > _OLD:
                file.unlink()
        except FileNotFoundError:  # another process has finished or removed it
            continue


def create_durably(path: Path, content: str) -> None:
    """Write a file as `write_durably` does, unless it is there already: of several processes the first wins.

    Raises:
        OSError: if the folder cannot be written.
    """
    mine = write_durably(path.with_name(f".{path.name}.{secrets.token_hex(4)}"), content)
    try:
        os.link(mine, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            mine.replace(path)
    finally:
        mine.unlink(missing_ok=True)
