"""Some of the images of a data set."""

import pickle

import pytest
import torch
from robust_bench.datasets.chosen import Chosen, chosen, evenly_spaced
from torch.utils.data import Dataset, TensorDataset


class Numbers(Dataset):
    fingerprint = "numbers"

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.full((1, 2, 2), index / 10), index


class Files(Numbers):
    fingerprint = "files"

    def filename(self, index):
        return f"{index}.png"


def test_items_are_those_at_the_positions():
    some = chosen(Numbers(), (1, 4, 9))
    assert len(some) == 3
    assert [some[index][1] for index in range(3)] == [1, 4, 9]
    assert not hasattr(some, "filename")
    assert [pickle.loads(pickle.dumps(some))[index][1] for index in range(3)] == [1, 4, 9]


def test_files_keep_their_names():
    some = chosen(Files(), range(0, 10, 2))
    assert [some.filename(index) for index in range(5)] == ["0.png", "2.png", "4.png", "6.png", "8.png"]


def test_the_fingerprint_is_of_data_and_positions():
    texts = {
        Chosen(data, positions).fingerprint for data in (Numbers(), Files()) for positions in ((1, 2), (1, 3), (1, 2))
    }
    assert len(texts) == 4


def test_tensors_in_memory_stay_there():
    some = chosen(TensorDataset(torch.arange(10) * 2, torch.arange(10)), range(0, 10, 3))
    assert type(some) is TensorDataset
    assert [tensor.tolist() for tensor in some.tensors] == [[0, 6, 12, 18], [0, 3, 6, 9]]


@pytest.mark.parametrize(("size", "count"), [(50_000, 5_000), (450, 100), (10, 10), (7, 100), (5, 1)])
def test_evenly_spaced_positions_are_as_many_as_asked_and_balanced(size, count):
    found = evenly_spaced(size, count)
    assert len(found) == min(size, count)
    assert found == sorted(set(found))
    assert all(0 <= position < size for position in found)
    for classes in (2, 5):  # of a data set in the order of its classes
        shares = torch.bincount(torch.tensor([position * classes // size for position in found]), minlength=classes)
        assert int(shares.max() - shares.min()) <= 1
