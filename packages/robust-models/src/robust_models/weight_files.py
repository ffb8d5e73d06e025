"""What a weight file is and what it holds, without executing anything in it."""

import hashlib
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from robust_models.safe_pickle import SAFE_GLOBALS, blocked_global


class UnsafePickleError(ValueError):
    """A pickle needs more than tensors and plain values, and reading it could run any code."""


def check_file(file: Path, expected: str | None) -> str:
    """Return the sha256 of `file`, after checking it against `expected` and that it is no page or pointer instead.

    Raises:
        ValueError: if the file is empty, a web page, a Git LFS pointer, or has another checksum; or if `expected` is
            not 64 hexadecimal digits.
    """
    if expected is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {expected!r}")
    with file.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        start = stream.read(512)
    if not start:
        raise ValueError(f"{file} is empty: download it again")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ValueError(
            f"{file} is a web page and not a weight file: the link led to a login, confirmation or error page; "
            "download the file itself"
        )
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{file} is a Git LFS pointer and not the weights themselves: fetch them with `git lfs pull`")
    if expected is not None and checksum != expected.lower():
        raise ValueError(
            f"{file} has sha256 {checksum} and not {expected.lower()}: it is damaged or another file; download it again"
        )
    return checksum


def read_file(file: Path, *, allow_pickle: bool = False) -> Any:
    """Return what `file` holds, tensors on the CPU: safetensors by its header, else a file of `torch.save`.

    Args:
        file: what to read.
        allow_pickle: let a pickle import and call whatever it names, which can run any code. False reads tensors,
            plain values, `OrderedDict`, `argparse.Namespace` and NumPy numbers, and refuses the rest.

    Raises:
        UnsafePickleError: if it is a pickle that needs more than is allowed; the message names the first such object.
        ValueError: if the file is neither kind, or damaged.
    """
    with file.open("rb") as stream:
        start = stream.read(9)
    damaged = f"{file} is truncated or damaged: download or copy it again"
    if start[8:] == b"{" or file.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{damaged} ({error})") from error
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise ValueError(
            f"{file} is neither a safetensors file nor one of torch.save: download it again, or convert it to "
            "safetensors"
        )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([*SAFE_GLOBALS]):
            warnings.simplefilter("ignore", UserWarning)  # of torch, about old pickles
            return torch.load(file, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        if allow_pickle:
            raise ValueError(f"{damaged} ({error})") from error
        name = blocked_global(file, str(error))
        what = f"the Python object {name}" if name else "more than tensors and plain values"
        raise UnsafePickleError(
            f"{file} needs {what}, and reading that could run any code, so it is refused. `robust-models convert` "
            "takes its tensors out into a safetensors file without running anything; if you trust its source and need "
            "the object itself, pass allow_pickle=True"
        ) from error
    except Exception as error:  # a damaged file makes torch raise nearly anything
        if "TorchScript" in str(error):
            raise ValueError(
                f"{file} is a TorchScript archive: load it with torch.jit.load and save its state_dict"
            ) from error
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ValueError(f"{damaged} ({reason})") from error
