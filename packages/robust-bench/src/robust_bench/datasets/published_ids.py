"""The 5,000 validation images on which AutoAttack on ImageNet is published, and a subset of our own."""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

PUBLISHED_FILE = "helper_files/imagenet_test_image_ids.txt"


def published_ids(file: Path | None = None) -> tuple[str, ...]:
    """Read the names of the published images, as `<wnid>/<name>.JPEG`.

    The list ships inside the distribution robustbench (Croce et al., "RobustBench: a standardized adversarial
    robustness benchmark", NeurIPS 2021 Datasets and Benchmarks, arXiv:2010.09670); it is read there as a file, and
    nothing is imported.

    Args:
        file: a file with one name a line; None looks for the installed robustbench.

    Raises:
        FileNotFoundError: if there is no such file, or robustbench is not installed.
        ValueError: if the file names no image, or one twice.
    """
    if file is None:
        spec = importlib.util.find_spec("robustbench")
        folders = [] if spec is None else list(spec.submodule_search_locations or ())
        file = next((Path(folder) / PUBLISHED_FILE for folder in folders), None)
        if file is None:
            raise FileNotFoundError(
                "the published list of 5,000 images ships with robustbench, which is not installed: "
                "pip install --no-deps robustbench, give it with --ids FILE, or take imagenet-autoattack-balanced, "
                "a subset of our own"
            )
    if not file.is_file():
        raise FileNotFoundError(f"no list of images {file}")
    names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    if not names:
        raise ValueError(f"{file} names no image: expected one name a line, as n01440764/ILSVRC2012_val_00000293.JPEG")
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise ValueError(f"{file} names {twice} twice")
    return names


def positions_of(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Find images by the stems of their file names, since folders and endings differ from copy to copy.

    Returns:
        Positions in `names`, ascending.

    Raises:
        ValueError: if some are missing.
    """
    stems = {PurePosixPath(name).stem: position for position, name in enumerate(names)}
    missing = [name for name in wanted if PurePosixPath(name).stem not in stems]
    if missing:
        raise ValueError(f"{len(missing)} of the {len(wanted)} listed images are not there, e.g. {missing[0]}")
    return sorted(stems[PurePosixPath(name).stem] for name in wanted)


def balanced(names: Sequence[str], labels: Sequence[int], per_class: int) -> list[int]:
    """Choose as many images of every class: those whose file names have the smallest SHA-256.

    The choice does not depend on folders, on the order of the files or on a random generator; a class with fewer images
    gives all of them.

    Returns:
        Positions, ascending.
    """
    by_class: dict[int, list[tuple[str, int]]] = {}
    for position, (name, label) in enumerate(zip(names, labels, strict=True)):
        digest = hashlib.sha256(PurePosixPath(name).stem.encode()).hexdigest()
        by_class.setdefault(label, []).append((digest, position))
    return sorted(position for found in by_class.values() for _, position in sorted(found)[:per_class])
