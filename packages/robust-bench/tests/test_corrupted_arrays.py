"""The files of a copy in the form of CIFAR-10-C."""

import os
import time

import numpy as np
import pytest
import torch
from robust_bench.corrupted_arrays import CorruptedArrays
from robust_bench.corruption_cells import Cell
from robust_bench.files import write_durably

NAMES = ("fog", "contrast")
LABELS = [3, 1, 2, 0, 9, 9, 4]
SIDE = 8


def images(cell: Cell, ids) -> torch.Tensor:
    """Images that tell which they are."""
    out = torch.empty(len(ids), 3, SIDE, SIDE, dtype=torch.uint8)
    for place, id_ in enumerate(ids):
        out[place] = torch.tensor([len(cell.corruption), cell.severity, id_])[:, None, None]
        out[place, :, 1, 2] = 200
    return out


@pytest.fixture
def arrays(tmp_path):
    return CorruptedArrays(
        folder=tmp_path / "out", kept=tmp_path / "out" / ".kept", labels=LABELS, corruptions=NAMES, side=SIDE, size=3
    )


def fill(arrays, cells=None):
    for cell in cells or arrays.cells:
        for ids in ([6], [0, 1, 2], [3, 4, 5]):
            arrays.write(cell, ids, images(cell, ids), write_durably)


def test_pieces_become_files_of_the_published_form(arrays):
    assert arrays.cells[4:6] == (Cell("fog", 5), Cell("contrast", 1))
    assert not arrays.present().any()
    fill(arrays)
    assert arrays.present().all()
    assert not list(arrays.folder.glob("*.npy"))  # pieces are hidden
    arrays.finish()
    for name in NAMES:
        found = np.load(arrays.folder / f"{name}.npy")
        assert (found.shape, found.dtype) == ((35, SIDE, SIDE, 3), np.uint8)
        for severity in range(1, 6):
            expected = images(Cell(name, severity), range(7)).permute(0, 2, 3, 1).numpy()
            assert np.array_equal(found[7 * (severity - 1) : 7 * severity], expected)
    labels = np.load(arrays.folder / "labels.npy")
    assert (labels.tolist(), labels.dtype) == (LABELS * 5, np.uint8)
    assert not list(arrays.kept.rglob("*.npy"))
    assert arrays.present().all()


def test_what_is_missing_is_known_by_piece(arrays):
    fill(arrays, arrays.cells[1:])
    arrays.write(arrays.cells[0], [3, 4, 5], images(arrays.cells[0], [3, 4, 5]), write_durably)
    assert np.flatnonzero(~arrays.present()).tolist() == [0, 1, 2, 6]
    with pytest.raises(FileNotFoundError, match="000000"):
        arrays.finish()
    assert not (arrays.folder / "fog.npy").exists()
    assert not list(arrays.folder.glob("*.npy.*"))


def test_only_whole_pieces_are_taken(arrays):
    for ids in ([0, 1], [1, 2, 3], [6, 6]):
        with pytest.raises(ValueError, match="a piece of 3 images cannot hold"):
            arrays.write(arrays.cells[0], ids, images(arrays.cells[0], ids), write_durably)


def test_a_damaged_piece_is_named(arrays):
    fill(arrays)
    piece = arrays.kept / "pieces" / "fog" / "2" / "000003.npy"
    np.save(piece, np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"fog/2/000003\.npy is damaged"):
        arrays.finish()
    piece.write_bytes(piece.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"cannot read the array .*fog/2/000003\.npy"):
        arrays.finish()
    assert not (arrays.folder / "fog.npy").exists()


def test_another_process_may_finish_first(arrays, monkeypatch):
    fill(arrays)

    def late(file, content, **changes):
        if file.name == "fog.npy" and not file.exists():
            monkeypatch.undo()
            arrays.finish()  # the other one: the pieces are gone
        return write_durably(file, content, **changes)

    monkeypatch.setattr("robust_bench.corrupted_arrays.write_durably", late)
    arrays.finish()
    assert np.load(arrays.folder / "fog.npy").shape == (35, SIDE, SIDE, 3)


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(arrays, monkeypatch):
    fill(arrays)
    arrays.unfinished.mkdir()
    for name, age in ((".fog.npy.1234abcd.tmp", 7200), (".contrast.npy.1234abcd.tmp", 60)):
        (arrays.unfinished / name).touch()
        os.utime(arrays.unfinished / name, (time.time() - age,) * 2)
    written = []
    content = CorruptedArrays._content

    def watched(self, name):
        yield from content(self, name)
        written.extend(path.name for path in arrays.folder.rglob(f".{name}.npy.*.tmp"))
        assert not list(arrays.folder.glob(".*.tmp"))

    monkeypatch.setattr(CorruptedArrays, "_content", watched)
    arrays.finish()
    assert len(written) == 4  # those that are written, and those that were there
    assert [path.name for path in arrays.unfinished.iterdir()] == [".contrast.npy.1234abcd.tmp"]


def test_labels_of_many_classes_keep_their_numbers(arrays, tmp_path):
    many = CorruptedArrays(
        folder=tmp_path, kept=tmp_path / ".kept", labels=[0, 300], corruptions=("fog",), side=SIDE, size=3
    )
    for cell in many.cells:
        many.write(cell, [0, 1], images(cell, [0, 1]), write_durably)
    many.finish()
    assert np.load(tmp_path / "labels.npy").tolist() == [0, 300] * 5


def test_the_room_that_is_needed(arrays):
    assert arrays.bytes_per_image(images(arrays.cells[0], [0])) == 3 * SIDE**2
    fill(arrays)
    arrays.finish()
    data = (arrays.folder / "fog.npy").stat().st_size - 128  # the header
    assert data == arrays.spare == 5 * 7 * 3 * SIDE**2
