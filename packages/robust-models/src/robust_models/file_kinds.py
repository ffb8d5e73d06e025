"""Whether a file looks like weights, and is there to its end."""

import json
import tarfile
import zipfile
from pathlib import Path


def check_kind(file: Path, *, archive: bool = False, known: bool = False) -> None:
    """Check that `file` begins as weights do, and that no end is missing.

    Torch's zip and safetensors files tell their length. Older files of torch.save (bare pickles) do not: they are read
    to their end, without executing anything in them.

    Args:
        file: what was downloaded.
        archive: expect an archive of weight files (zip or tar) instead.
        known: a checksum says already that it is whole: do not read a bare pickle.

    Raises:
        ValueError: if it is no such file or its end is missing.
    """
    with file.open("rb") as stream:
        start = stream.read(9)
    if archive:
        if not zipfile.is_zipfile(file) and not tarfile.is_tarfile(file):
            raise ValueError(f"{file} is no zip or tar archive, which it should be")
    elif start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{file} is truncated: the directory at the end of the zip file is missing")
    elif start[8:] == b"{":
        _check_safetensors(file)
    elif not start.startswith(b"\x80"):
        raise ValueError(f"{file} is neither a safetensors file nor one of torch.save: it begins with {start!r}")
    elif not known:
        from robust_models.inert_pickle import read_inert  # not above: that module is also a program of its own

        read_inert(file)


def _check_safetensors(file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= size - 8 else b""
    try:
        ends = [tensor["data_offsets"][1] for name, tensor in json.loads(header).items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{file} is truncated or damaged: the header of the safetensors file is not whole") from None
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        raise ValueError(f"{file} is truncated or damaged: it has {size} bytes and its header tells of {whole}")
