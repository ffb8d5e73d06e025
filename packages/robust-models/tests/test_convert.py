"""Weight files as safetensors; whole pickled models are taken apart without their code."""

import os
import subprocess
import sys
import types

import pytest
import safetensors
import safetensors.torch
import torch
from robust_models import inert_pickle
from robust_models.cache import Origin
from robust_models.convert import convert
from robust_models.inert_pickle import read_inert
from robust_models.weight_files import UnsafePickleError, check_file, read_file
from torch import nn


class Trap:
    """Unpickled by anything but a restricted reader, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


@pytest.fixture
def foreign(monkeypatch):
    """Make a model whose class lies in a module that is gone when its file is read."""
    module = types.ModuleType("authors_code")
    source = """
from torch import nn
import torch

class Options(dict):
    pass

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU())
        self.head = nn.Linear(4, 2)
        self.tied = self.head
        self.scale = nn.Parameter(torch.ones(()))
        self.none = None
        self.register_parameter("absent", None)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("passing", torch.arange(5), persistent=False)
        self.options, self.kinds, self.call = Options(a=1), {torch.float32}, torch.nn.functional.relu
        self.head.half()

def build(seed):
    torch.manual_seed(seed)
    return Net()
"""
    exec(compile(source, "authors_code", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "authors_code", module)
    model = module.build(0)
    yield model
    monkeypatch.undo()


def forget(monkeypatch):
    monkeypatch.delitem(sys.modules, "authors_code")


@pytest.fixture
def here(monkeypatch):
    """Do what the other process does in this one: that spares it the import of torch."""

    def run(command, **_):
        assert command[1:4] == ["-P", "-m", "robust_models.inert_pickle"]
        try:
            inert_pickle.main(command[4:])
        except SystemExit as end:
            return subprocess.CompletedProcess(command, 1, stderr=f"a warning\n{end}\n")
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)


def metadata(file):
    with safetensors.safe_open(file, framework="pt") as opened:
        return opened.metadata()


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype


@pytest.mark.parametrize("nest", ["", "state_dict", "model"])
def test_names_and_values_stay_and_the_header_tells_the_source(nest, tmp_path):
    state = nn.BatchNorm1d(3).state_dict() | {"tied": torch.arange(6.0).reshape(2, 3).T}
    source, target = tmp_path / "w.pth", tmp_path / "w.safetensors"
    torch.save({nest: state} if nest else state, source)
    made = convert(source, target, entry="zoo/small")
    assert_same(safetensors.torch.load_file(target), _stored(target, state))
    assert len(_stored(target, state)) == len(state)
    held = metadata(target)
    assert held == dict(made.metadata)
    assert held.pop("date").endswith("+00:00")
    assert held == {
        "format": "pt",
        "entry": "zoo/small",
        "source_url": str(source),
        "source_sha256": check_file(source, None),
        "mapping": nest,
    }
    assert made.tensors == len(state)


def _stored(file, state):
    return {name: state[name] for name in safetensors.torch.load_file(file)}


def test_the_address_is_that_of_the_download_while_the_file_is_the_same(tmp_path):
    source = tmp_path / "w.pth"
    torch.save({"a": torch.ones(1)}, source)
    origin = {"url": "https://weights.example/w.pth", "size": 1, "etag": "", "date": ""}
    Origin(sha256=check_file(source, None), **origin).write(source)
    assert convert(source, tmp_path / "w.safetensors").metadata["source_url"] == "https://weights.example/w.pth"
    torch.save({"a": torch.zeros(1)}, source)
    assert convert(source, tmp_path / "w.safetensors").metadata["source_url"] == str(source)


def test_averaged_weights(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}, "state_dict_ema": {"a": torch.zeros(1)}}, tmp_path / "w.pth")
    convert(tmp_path / "w.pth", tmp_path / "w.safetensors", ema=True)
    assert safetensors.torch.load_file(tmp_path / "w.safetensors")["a"] == 0
    assert metadata(tmp_path / "w.safetensors")["mapping"] == "state_dict_ema"


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=str)
@pytest.mark.parametrize("nested", [False, True], ids=["model", "in a checkpoint"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
def test_a_whole_model_gives_its_state_dict_without_its_code(nested, options, foreign, tmp_path, monkeypatch):
    source = tmp_path / "w.pt"
    torch.save({"epoch": 3, "model": nn.DataParallel(foreign)} if nested else foreign, source, **options)
    expected = {f"module.{name}" if nested else name: value for name, value in foreign.state_dict().items()}
    forget(monkeypatch)
    with pytest.raises(UnsafePickleError):
        read_file(source)
    content = read_inert(source)
    assert_same(content["model"] if nested else content, expected)
    assert "authors_code" not in sys.modules


@pytest.mark.slow
def test_a_whole_model_is_converted_in_a_process_of_its_own(foreign, tmp_path, monkeypatch):
    source, target = tmp_path / "w.pt", tmp_path / "w.safetensors"
    foreign.trap = Trap(tmp_path / "made")
    torch.save({"model": foreign}, source)
    expected = foreign.state_dict()
    forget(monkeypatch)
    assert convert(source, target, entry="zoo/whole").tensors == len(expected)
    assert_same(safetensors.torch.load_file(target), _stored(target, expected))
    assert set(_stored(target, expected)) == set(expected)
    assert metadata(target)["mapping"] == "model"
    assert not (tmp_path / "made").exists()


def test_averaged_weights_of_whole_models(foreign, here, tmp_path, monkeypatch):
    averaged = {name: value + 1 for name, value in foreign.state_dict().items()}
    torch.save({"model": foreign, "model_ema": averaged}, tmp_path / "w.pt")
    forget(monkeypatch)
    convert(tmp_path / "w.pt", tmp_path / "w.safetensors", ema=True)
    assert_same(safetensors.torch.load_file(tmp_path / "w.safetensors"), _stored(tmp_path / "w.safetensors", averaged))


def test_a_call_in_the_file_is_not_made(tmp_path):
    torch.save({"a": torch.ones(1), "trap": Trap(tmp_path / "made")}, tmp_path / "w.pt")
    assert read_inert(tmp_path / "w.pt")["a"] == 1
    assert not (tmp_path / "made").exists()


def test_views_beyond_their_storage_are_refused(tmp_path):
    file = tmp_path / "w.pt"
    torch.save({"model": nn.Linear(2, 2), "a": torch.ones(7, 11)}, file)
    content = file.read_bytes()
    assert content.count(b"K\x07K\x0b") == 1
    file.write_bytes(content.replace(b"K\x07K\x0b", b"K\x7fK\x0b"))
    with pytest.raises(ValueError, match=r"truncated or damaged \(RuntimeError: .*storage"):
        read_inert(file)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_a_torchscript_archive_is_refused(tmp_path):
    torch.jit.script(nn.Linear(1, 1)).save(str(tmp_path / "w.pt"))
    with pytest.raises(ValueError, match="TorchScript"):
        read_inert(tmp_path / "w.pt")
    with pytest.raises(ValueError, match="TorchScript"):
        convert(tmp_path / "w.pt", tmp_path / "w.safetensors")


def test_what_cannot_be_converted_leaves_nothing(here, tmp_path):
    source, target = tmp_path / "w.pt", tmp_path / "w.safetensors"
    torch.save({"epoch": 3}, source)
    with pytest.raises(ValueError, match=r"w\.pt holds a mapping with the keys epoch and no state_dict"):
        convert(source, target)
    torch.save(Trap(tmp_path / "made"), source)
    with pytest.raises(ValueError, match=r"^.*w\.pt holds a .* and no state_dict"):
        convert(source, target)
    source.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="web page"):
        convert(source, target)
    with pytest.raises(ValueError, match=r"as \.safetensors, got w\.bin"):
        convert(source, tmp_path / "w.bin")
    with pytest.raises(FileNotFoundError, match="none"):
        convert(tmp_path / "none.pt", target)
    with pytest.raises(FileNotFoundError, match="folder"):
        convert(source, tmp_path / "folder" / "w.safetensors")
    assert not target.exists()
    assert not (tmp_path / "made").exists()
