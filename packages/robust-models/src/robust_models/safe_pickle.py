"""The few Python objects that a checkpoint may hold beside tensors, and the name of the one that it may not."""

import argparse
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

# Kinds of NumPy number by their code, and how struct reads them.
_NUMBERS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
_REBUILDING = re.compile(r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.\w+Storage")


class NumberKind:
    """Stands for the `numpy.dtype` of one number; objects, strings and records are refused.

    It takes the place of NumPy's own class so that nothing in a file reaches NumPy's memory handling.
    """

    def __init__(self, code: str, *_: object) -> None:
        if code not in _NUMBERS:
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype[{code}] is no plain number")
        self.format = f"<{_NUMBERS[code]}"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.format = f">{self.format[1:]}"


def number(kind: NumberKind, raw: bytes) -> float:
    """Return the Python number that a pickled NumPy number holds."""
    value: float = struct.unpack(kind.format, raw)[0]
    return value


# Under the names that files use; torch itself adds tensors, OrderedDict and plain values.
SAFE_GLOBALS: list[tuple[Callable[..., Any], str]] = [
    (argparse.Namespace, "argparse.Namespace"),
    (NumberKind, "numpy.dtype"),
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
]


def blocked_global(file: Path, message: str) -> str | None:
    """Return the name of the object that torch's restricted reader refused with `message`, None if there is none."""
    found = re.search(r"GLOBAL ([\w.]+(\[\w+\])?)", message)
    if found:
        return found.group(1)
    # Torch does not read newer pickle protocols at all, so it does not come to the name.
    allowed = {name for _, name in SAFE_GLOBALS}
    try:
        return next((name for name in _globals_of(file) if name not in allowed and not _REBUILDING.match(name)), None)
    except Exception:  # a damaged pickle makes pickletools raise nearly anything, MemoryError too
        return None


def _globals_of(file: Path) -> Iterator[str]:
    """The names that a pickle imports, in order, without importing them."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            yield from _imports(stream)
        return
    with zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            if member.endswith("data.pkl"):
                with archive.open(member) as stream:
                    yield from _imports(stream)


def _imports(stream: IO[bytes]) -> Iterator[str]:
    texts: list[str] = []  # pushed so far: STACK_GLOBAL takes the last two, the module and the name
    memo: dict[int, str] = {}
    stored = 0
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif operation.name == "STACK_GLOBAL" and len(texts) > 1:
            yield f"{texts[-2]}.{texts[-1]}"
        elif operation.name == "MEMOIZE":
            memo[stored] = texts[-1] if texts else ""
            stored += 1
        elif operation.name.endswith("BINGET"):
            texts.append(memo.get(int(argument or 0), ""))
        elif isinstance(argument, str):
            texts.append(argument)
