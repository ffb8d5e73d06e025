"""Making corrupted copies in processes and on devices."""

import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch
from robust_bench.corrupted_tree import CorruptedTree
from robust_bench.corrupting import Corrupting, one_thread
from robust_bench.corruption_cells import Cell
from robust_bench.shards import Shards
from torch.utils.data import TensorDataset

CELLS = (Cell("snow", 2), Cell("pixelate", 5), Cell("spatter", 4))
CPU = torch.device("cpu")


def into(folder, data, **changes):
    """Nine images that go into a folder."""
    names = [f"a/{id_}.png" for id_ in range(9)]
    files = CorruptedTree(folder=folder, unfinished=folder / "parts", names=names, cells=CELLS, form="png")
    settings = {"data": data, "preset": "tiny_imagenet", "variant": "imagenet_c", "seed": 1, "frost": "procedural"}
    shards = Shards(folder=folder / "kept", fingerprint={}, images=9, size=4)
    return Corrupting(**settings, files=files, absent=~files.present(), shards=shards, **changes)


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.fixture
def data(pictures):
    return TensorDataset(pictures(9, (64, 64)) / 255, torch.zeros(9))


@pytest.fixture
def expected(data, tmp_path):
    into(tmp_path / "expected", data).work([0, 1, 2], CPU, 0, False)
    found = tree(tmp_path / "expected")
    assert len(found) == 27
    return found


def test_a_process_that_is_started_anew_makes_the_same(data, expected, tmp_path):
    """As with the start methods spawn and forkserver, which pickle the work."""
    corrupting = pickle.loads(pickle.dumps(into(tmp_path / "out", data)))
    for shard in (2, 0, 1):
        corrupting.make(shard)
    assert tree(tmp_path / "out") == expected


def test_the_way_of_gpus_makes_the_same(data, expected, tmp_path):
    corrupting = into(tmp_path / "out", data)
    for shard in (2, 0, 1):
        corrupting.make_on(CPU, shard, corrupting.read(shard))
    assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("on_device", [False, True])
def test_what_is_being_written_does_not_lie_among_the_images(data, tmp_path, monkeypatch, on_device):
    replace, written = Path.replace, []

    def watched(self, target):
        written.append(self.parent)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    made = into(tmp_path, data)
    if on_device:
        made.make_on(CPU, 0, made.read(0))
    else:
        made.make(0)
    assert written == [tmp_path / "parts"] * 12


@pytest.mark.gpu
def test_a_gpu_makes_nearly_the_same(data, expected, tmp_path):
    import io

    import numpy as np
    from PIL import Image

    into(tmp_path / "out", data).work([0, 1, 2], torch.device("cuda"), 2, False)
    found = tree(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, content in found.items():
        images = [np.asarray(Image.open(io.BytesIO(each)), dtype=int) for each in (content, expected[name])]
        assert (np.abs(images[0] - images[1]) > 1).mean() < 1e-3, name


@pytest.mark.parametrize("on_device", [False, True])
def test_only_what_is_missing_is_made(data, expected, tmp_path, on_device):
    corrupting = into(tmp_path / "out", data)
    for name in ("snow/2/a/1.png", "snow/2/a/2.png", "pixelate/5/a/7.png"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"was there")
    corrupting = into(tmp_path / "out", data)
    for shard in (0, 1, 2):
        if on_device:
            corrupting.make_on(CPU, shard, corrupting.read(shard))
        else:
            corrupting.make(shard)
    found = tree(tmp_path / "out")
    assert [name for name in found if found[name] != expected[name]] == [n for n in found if found[n] == b"was there"]
    assert len([name for name in found if found[name] == b"was there"]) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_written_is_an_error(data, tmp_path, workers):
    corrupting = into(tmp_path / "out", data)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pixelate").touch()  # should be a folder
    with pytest.raises(OSError, match="pixelate"):
        corrupting.work([0, 1, 2], CPU, workers, False)


class Deadly(TensorDataset):
    """Kills the worker that reads the image 5."""

    def __getitem__(self, index):
        if index == 5 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_worker_that_dies_is_told_and_what_is_finished_stays(data, expected, tmp_path):
    with pytest.raises(OSError, match="a worker process died"):
        into(tmp_path / "out", Deadly(*data.tensors)).work([0, 1, 2], CPU, 1, False)
    assert {name: expected[name] for name in tree(tmp_path / "out")} == tree(tmp_path / "out")
    assert len(tree(tmp_path / "out")) == 12
    rest = into(tmp_path / "out", data)
    assert rest.absent.sum() == 15
    rest.work([1, 2], CPU, 0, False)
    assert tree(tmp_path / "out") == expected


def test_what_is_needed_is_near_what_is_taken(data, expected, tmp_path):
    taken = sum(-(-len(content) // 4096) * 4096 for content in expected.values())
    assert into(tmp_path / "out", data).needed() == pytest.approx(taken, rel=0.2)
    assert into(tmp_path / "expected", data).needed() == 0


def test_the_number_of_threads_comes_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
