"""The test images of CIFAR-10 and CIFAR-100."""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from robust_bench.datasets.arrays import Arrays
from robust_bench.preprocess import AsStored

SIDE = 32
FOLDERS = {10: "cifar-10-batches-py", 100: "cifar-100-python"}
"""What the archive of the python version is unpacked to, by the number of classes."""


def cifar(path: Path, classes: Literal[10, 100], *, preprocess: AsStored | None = None) -> Arrays:
    """Open the 10,000 test images, through torchvision, which checks the files' MD5.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Args:
        path: the folder `cifar-10-batches-py` or `cifar-100-python`, or what it lies in.
        classes: 10 or 100.
        preprocess: what is done to the images; None means nothing.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if a file of it is missing or damaged.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    folder = path if path.name == FOLDERS[classes] else path / FOLDERS[classes]
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: it comes out of cifar-{classes}-python.tar.gz")
    opened = {10: CIFAR10, 100: CIFAR100}[classes]
    try:
        with warnings.catch_warnings():  # of NumPy 2.4.0 to 2.4.4, about arrays that Python 2 has pickled
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            found = opened(folder.parent, train=False, download=False)
    except RuntimeError as error:
        raise ValueError(
            f"the files of CIFAR-{classes} in {folder} are incomplete or damaged, their MD5 differs: unpack "
            f"cifar-{classes}-python.tar.gz again"
        ) from error
    return Arrays(np.ascontiguousarray(found.data), found.targets, preprocess=preprocess or AsStored(stored=SIDE))
