"""Room on the disk, looked for before it is needed."""

import shutil
from pathlib import Path


def check_space(folder: Path, needed: float) -> None:
    """Make sure that there is room for files in a folder, which need not be there yet.

    Args:
        folder: that they will lie in.
        needed: bytes.

    Raises:
        ValueError: if there is too little; the message has both numbers.
    """
    nearest = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(nearest).free
    if free < needed:
        raise ValueError(
            f"what is missing in {folder} needs about {_size(needed)} and {_size(free)} are free there: choose another "
            "--out, or fewer --corruptions or --severities"
        )


def _size(count: float) -> str:
    """Write a number of bytes.

    Examples:
        >>> _size(999), _size(71.24e9)
        ('999 B', '71.2 GB')
    """
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count:.0f} B"
