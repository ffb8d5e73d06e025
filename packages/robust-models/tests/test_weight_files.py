"""What is read of a weight file, and that nothing in it is executed unless that is asked for."""

import argparse
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from robust_models.weight_files import UnsafePickleError, check_file, read_file
from torch import nn


class Trap:
    """Unpickled by anything but a restricted reader, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (__import__("os").mkdir, (self.folder,))


class Swapped:
    """Pickled as a number of a machine with the other order of bytes."""

    def __reduce__(self):
        return np.float32(0).__reduce__()[0], (np.dtype(">f4"), struct.pack(">f", 2.5))


def saved(value, file, **options):
    torch.save(value, file, **options)
    return file


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_checkpoints_as_timm_writes_them_are_read(legacy, tmp_path):
    content = {
        "state_dict": OrderedDict(weight=torch.arange(3.0)),
        "args": argparse.Namespace(lr=0.1, sizes=[1, 2]),
        "metric": np.float64(0.75),
        "epoch": np.int64(-3),
        "half": np.float16(1.5),
        "swapped": Swapped(),
        "best": np.bool_(True),
    }
    file = saved(content, tmp_path / "c.pth.tar", _use_new_zipfile_serialization=not legacy)
    read = read_file(file)
    assert torch.equal(read["state_dict"]["weight"], torch.arange(3.0))
    assert read["args"] == argparse.Namespace(lr=0.1, sizes=[1, 2])
    assert [read[name] for name in ("metric", "epoch", "half", "swapped", "best")] == [0.75, -3, 1.5, 2.5, True]
    assert type(read["best"]) is bool


def test_numbers_of_older_numpy_are_read(tmp_path):
    stream = io.BytesIO()
    torch.save({"metric": np.float32(0.25), "weight": torch.ones(1)}, stream)
    file = tmp_path / "old.pt"
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(file, "w") as older:
        for name in archive.namelist():
            older.writestr(name, archive.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert b"numpy.core.multiarray" in file.read_bytes()
    assert read_file(file)["metric"] == 0.25


OBJECTS = [
    (nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
    (Path("x"), "pathlib"),
    (np.ones(3), r"numpy\._?core\.multiarray\._reconstruct"),
    (Trap("/nowhere"), r"(posix|nt)\.mkdir"),
]
KINDS = [  # torch reads no pickles of protocol 4 at all, so it does not come to the kind of number in them
    (np.dtype(object), r"numpy\.dtype\[O8\]"),
    (np.str_("text"), r"numpy\.dtype\[U4\]"),
    (np.dtype([("a", "i4")]), r"numpy\.dtype\[V4\]"),
]


@pytest.mark.parametrize(
    ("protocol", "value", "name"), [(2, *one) for one in OBJECTS + KINDS] + [(4, *one) for one in OBJECTS]
)
def test_what_else_is_refused_by_its_name(protocol, value, name, tmp_path):
    file = saved({"weight": torch.ones(1), "other": value}, tmp_path / "w.pt", pickle_protocol=protocol)
    with pytest.raises(UnsafePickleError, match=rf"w\.pt needs the Python object {name}.*refused.*allow_pickle=True"):
        read_file(file)


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_is_executed_unless_asked_for(protocol, tmp_path):
    for name in ("zip", "legacy", "raw"):
        file, trap = tmp_path / f"{name}.pt", tmp_path / f"made by {name}"
        if name == "raw":
            file.write_bytes(pickle.dumps(Trap(trap), protocol=protocol))
        else:
            saved(Trap(trap), file, _use_new_zipfile_serialization=name == "zip", pickle_protocol=protocol)
        with pytest.raises(ValueError, match=rf"{name}\.pt"):
            read_file(file)
        assert not trap.exists()
        if name != "raw":
            read_file(file, allow_pickle=True)
            assert trap.exists()


def test_no_setting_of_the_environment_allows_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file = saved(Trap(tmp_path / "made"), tmp_path / "w.pt")
    with pytest.raises(UnsafePickleError):
        read_file(file)
    assert not (tmp_path / "made").exists()


def test_the_users_own_permissions_are_neither_used_up_nor_changed(tmp_path):
    with torch.serialization.safe_globals([argparse.Namespace]):
        file = saved({"args": argparse.Namespace(a=1)}, tmp_path / "w.pt")
        read_file(file)
        assert torch.load(file, weights_only=True)["args"].a == 1
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)


def test_a_damaged_file_is_damaged_also_when_pickles_are_allowed(tmp_path):
    file = saved({"weight": torch.ones(10)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"w\.pt is truncated or damaged"):
        read_file(file, allow_pickle=True)


def test_checksums_are_those_of_sha256sum(tmp_path):
    file = tmp_path / "w.pt"
    file.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert check_file(file, None) == check_file(file, known.upper()) == known
    with pytest.raises(ValueError, match=f"has sha256 {known} and not 0"):
        check_file(file, "0" * 64)
