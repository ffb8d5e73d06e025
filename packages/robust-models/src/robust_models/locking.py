"""One process at a time works on a file of the cache."""

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock `<file>.lock`, waiting while another process or thread holds it; makes the folder.

    The operating system releases it when the process ends, however it ends, so a killed process blocks nobody. The
    empty lock file stays: to remove it could split those who wait from those who come.

    Raises:
        OSError: if the file system cannot lock.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        stream = file.with_name(f"{file.name}.lock").open("ab")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not file.exists():
            raise
        yield  # a cache that others filled and that we can only read: nothing to guard
        return
    with stream:
        if not _taken(stream, wait=False):
            logger.info("another process works on %s: waiting for it", file)
            while not _taken(stream, wait=True):
                pass
        yield  # closing the stream releases the lock


if sys.platform == "win32":
    import msvcrt

    def _taken(stream: IO[bytes], wait: bool) -> bool:
        stream.seek(0)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _taken(stream: IO[bytes], wait: bool) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise OSError(
                f"the file system of {stream.name} cannot lock files ({error}): "
                "set ROBUST_MODELS_HOME to a folder on a local disk"
            ) from error
        return True
