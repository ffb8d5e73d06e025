"""What lies where in a tar file, so that any member can be read without those before it."""

import functools
import os
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_BLOCK = 512  # bytes, in which tar files are made


class Member(NamedTuple):
    """A file in a tar file: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def tar_members(path: Path) -> tuple[Member, ...]:
    """List the files in a tar file, in their order, from their headers alone.

    The list is kept as long as the process lives, or until the file changes: benchmarks that share data open it again.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is compressed or no tar file, is cut off or damaged, holds links or another tar file, or goes
            on after its end.
    """
    about = path.stat()
    return _listed(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _listed(path: Path, size: int, _changed: int) -> tuple[Member, ...]:
    found = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise ValueError(
                        f"{path} holds {member.name}, which is a link or no ordinary file: pack the files themselves "
                        "(tar --dereference --hard-dereference)"
                    )
                found.append(Member(member.name.removeprefix("./"), member.offset_data, member.size))
            _check_end(path, archive.offset, size)
    except tarfile.TarError as error:
        raise ValueError(
            f"cannot read the tar file {path} ({error}): it is damaged, cut off, or compressed; unpack .tar.gz to "
            ".tar, since nothing can be found inside a compressed file without all that is before it"
        ) from error
    return tuple(found)


def _check_end(path: Path, end: int, size: int) -> None:
    """Refuse a file whose members do not end with zeros, which `tarfile` takes as if it ended there.

    Raises:
        ValueError: if it is cut off or damaged at `end`, or goes on after zeros.
    """
    with path.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise ValueError(
                f"the tar file {path} is damaged or cut off at byte {end:,} of {size:,}: was its download or copy cut "
                "off?"
            )
        while block := file.read(1 << 20):
            if block.count(0) != len(block):
                raise ValueError(
                    f"the tar file {path} goes on after its end at byte {end:,}: tar files that were joined must be "
                    "taken apart, since all but the first would be left out"
                )


class TarReader:
    """Reads bytes of tar files, of which every process keeps the last one open.

    It can be copied into other processes by fork and by pickle: each opens files for itself.
    """

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._opened: tuple[int, Path] | None = None

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset` on.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if it ends before that.
        """
        wanted = (os.getpid(), path)
        if self._file is None or self._opened != wanted:
            self.close()
            self._file, self._opened = path.open("rb"), wanted
        self._file.seek(offset)
        content = self._file.read(size)
        if len(content) != size:
            raise ValueError(
                f"{path} ends {size - len(content):,} bytes too early: it became shorter since it was opened"
            )
        return content

    def close(self) -> None:
        """Close what this process has open."""
        if self._file is not None:
            self._file.close()
        self._file, self._opened = None, None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open file."""
        return {"_file": None, "_opened": None}

    def __del__(self) -> None:
        self.close()
