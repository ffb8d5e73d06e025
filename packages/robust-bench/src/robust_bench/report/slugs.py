"""File names for pages of models, whatever the models are called."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

_PLAIN = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_HASHED = re.compile(r".*-[0-9a-f]{10,}")
_RESERVED = re.compile(r"(index|con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_LENGTH = 80


def slugs(names: Sequence[str]) -> tuple[str, ...]:
    """Give different names different file names of the letters a-z, digits, ".", "_" and "-".

    A name that is already like that is its own. Others get what is left of them and the beginning of their sha256, so
    that they depend on no other name. The names differ also where letter case does not count, and none is
    special to an operating system.

    Raises:
        ValueError: if a name is there twice.

    Examples:
        >>> slugs(["resnet50", "ResNet50", "../../x"])
        ('resnet50', 'resnet50-17602d153a', 'x-9cdf6a5010')
    """
    if len(set(names)) < len(names):
        raise ValueError("a name is there twice: only different names can have files of their own")
    taken: dict[str, str] = {}
    for name in names:
        taken[next(slug for slug in _candidates(name) if slug not in taken)] = name
    found = {name: slug for slug, name in taken.items()}
    return tuple(found[name] for name in names)


def _candidates(name: str) -> list[str]:
    plain = _PLAIN.fullmatch(name) and not _HASHED.fullmatch(name) and not _RESERVED.fullmatch(name)
    if plain and len(name) <= _LENGTH:
        return [name]
    ascii_ = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_.lower()).strip("-")[:_LENGTH].strip("-") or "model"
    digest = hashlib.sha256(name.encode()).hexdigest()
    return [f"{words}-{digest[:length]}" for length in range(10, len(digest) + 1)]
