"""The tar files of a data set."""

import re
from pathlib import Path

from robust_bench.datasets.folder import in_natural_order

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def find_shards(data: Path, pattern: str = "") -> tuple[Path, ...]:
    """Find the tar files of a data set, in the order of their names: numbers in them count as numbers.

    Args:
        data: a folder, one tar file, or a pattern of tar files.
        pattern: of the tar files below the folder `data`, with *, ? and [...] as in the shell, and with braces, e.g.
            "val-{000..063}.tar" or "{a,b}/*.tar"; "" means all `*.tar` that lie in it. Each word that the braces make
            must match a file, so that a missing shard is noticed.

    Raises:
        FileNotFoundError: if there is no such folder, or no file matches.
        ValueError: if a file is compressed, so that nothing in it can be found by itself.
    """
    root, words = data, expand_braces(pattern)
    if not pattern and data.is_dir():
        words = ["*.tar"]
    elif not pattern or Path(pattern).is_absolute():
        whole = data / pattern
        if whole.is_file():
            return (_uncompressed(whole),)
        root = Path(whole.anchor)
        words = expand_braces(str(whole.relative_to(root)))
    found: list[str] = []
    for word in words:
        files = [str(path) for path in root.glob(word) if path.is_file() and not path.name.startswith(".")]
        if not files:
            raise FileNotFoundError(f"no tar file {root / word}{_hint((root / word).parent)}")
        found += files
    return tuple(_uncompressed(Path(name)) for name in in_natural_order(list(dict.fromkeys(found))))


def expand_braces(pattern: str) -> list[str]:
    """Write out braces as bash does: {000..063} counts, with the digits of its ends, {a,b} lists.

    Examples:
        >>> expand_braces("{a,b}-{09..11}")
        ['a-09', 'a-10', 'a-11', 'b-09', 'b-10', 'b-11']
    """
    for match in re.finditer(r"\{([^{}]*)\}", pattern):
        if words := _words(match[1]):
            before, after = pattern[: match.start()], pattern[match.end() :]
            return [out for word in words for out in expand_braces(f"{before}{word}{after}")]
    return [pattern]


def _words(inside: str) -> list[str]:
    """What a pair of braces stands for; nothing if it stands for itself."""
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if counted is None:
        return inside.split(",") if "," in inside else []
    ends = counted.groups()
    first, last = map(int, ends)
    width = max(map(len, ends)) if any(len(end) > 1 and end.startswith("0") for end in ends) else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _uncompressed(path: Path) -> Path:
    if path.name.lower().endswith(_COMPRESSED):
        raise ValueError(f"{path} is compressed, so that no image in it can be found by itself: unpack it to .tar")
    return path


def _hint(folder: Path) -> str:
    """What to do about a missing file in this folder."""
    if not folder.is_dir():
        return f": there is no folder {folder}"
    if zipped := [entry.name for entry in folder.iterdir() if entry.name.lower().endswith(_COMPRESSED)]:
        return f": unpack compressed ones such as {min(zipped)} to .tar, since no image in them can be found by itself"
    return f": expected shards such as {folder / '000000.tar'}"
