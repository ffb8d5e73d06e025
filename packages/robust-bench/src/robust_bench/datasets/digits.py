"""The embedded data set: handwritten digits without a download."""

from typing import Literal

import torch
from torch.utils.data import TensorDataset

_TEST = 450
_SEED = 0


def digits(part: Literal["train", "test"] = "test") -> TensorDataset:
    """Give one part of the 1,797 handwritten digits that come with scikit-learn, as float images and int64 labels.

    Images (N, 1, 8, 8), grey values 0..16 divided by 16; labels (N,) 0..9. The source is the test set of the UCI
    "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak, 1998). The split is fixed:
    `train_test_split(range(1797), test_size=450, stratify=labels, random_state=0)` of scikit-learn, whose shuffling is
    numpy's legacy generator and the same everywhere; both parts are then sorted by position.

    Args:
        part: "train" (1,347 images) or "test" (450).

    Raises:
        ValueError: if `part` is something else.

    Examples:
        >>> images, labels = digits("test").tensors
        >>> images.shape, labels.shape
        (torch.Size([450, 1, 8, 8]), torch.Size([450]))
    """
    if part not in ("train", "test"):
        raise ValueError(f"part must be 'train' or 'test', got {part!r}")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    labels = torch.from_numpy(found.target).to(torch.int64)
    images = (torch.from_numpy(found.images) / 16.0).to(torch.float32)[:, None]
    train, test = train_test_split(list(range(len(labels))), test_size=_TEST, stratify=found.target, random_state=_SEED)
    chosen = torch.tensor(sorted(train if part == "train" else test))
    return TensorDataset(images[chosen].contiguous(), labels[chosen])
