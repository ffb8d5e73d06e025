"""Models by name, file and factory."""

import sys

import pytest
import torch
from robust_bench.files import sha256
from robust_bench.model_source import ModelSource
from robust_models import create_model, save_weights
from torch import nn


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_weights(create_model("small_cnn_8"), path)
    return path


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's in the current folder."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "def conv():\n    return nn.Conv2d(3, 10, 8)\n"
        "def broken():\n    return 1 / 0\n"
        "def number():\n    return 5\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "mine"
    sys.modules.pop("mine", None)


def test_a_name_with_weights(weights):
    source = ModelSource(spec="small_cnn_8", weights=weights)
    model = source.build(num_classes=10, in_chans=1)
    torch.manual_seed(0)
    expected = create_model("small_cnn_8")
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(images), expected(images))
    about = source.describe(model, weights.parent / "run")
    assert about == {
        "spec": "small_cnn_8",
        "weights": "../model.safetensors",
        "sha256": sha256(weights),
        "pretrained": False,
        "num_classes": 10,
        "in_chans": 1,
        "parameters": 62_250,
    }


def test_the_data_decide_about_classes_and_channels():
    model = ModelSource(spec="timm:resnet18", pretrained=False).build(num_classes=7, in_chans=1)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 7)
    source = ModelSource(spec="timm:resnet18", pretrained=False, num_classes=5)
    model = source.build(num_classes=7, in_chans=3)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert source.describe(model, model_folder())["in_chans"] == 3


def model_folder():
    from pathlib import Path

    return Path("run")


def test_published_weights_are_asked_for_only_where_they_should(monkeypatch):
    import robust_models

    asked = []

    def fake(name, *, pretrained=False, **settings):
        asked.append((name, pretrained))
        return nn.Conv2d(3, 4, 1)

    monkeypatch.setattr(robust_models, "create_model", fake)
    ModelSource(spec="timm:resnet18").build(num_classes=4, in_chans=3)
    ModelSource(spec="timm:resnet18", pretrained=False).build(num_classes=4, in_chans=3)
    ModelSource(spec="resnet18", pretrained=True).build(num_classes=4, in_chans=3)
    assert asked == [("resnet18", True), ("resnet18", False), ("resnet18", True)]


def test_a_factory_in_the_current_folder(module):
    source = ModelSource(spec=f"{module}:build")
    model = source.build(num_classes=10, in_chans=1)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert source.describe(model, model_folder())["weights"] is None


def test_the_first_convolution_of_a_factory_says_nothing_about_the_images(module):
    source = ModelSource(spec=f"{module}:conv")  # it might come after a layer that makes colours from grey
    assert source.describe(source.build(num_classes=10, in_chans=1), model_folder())["in_chans"] is None


@pytest.mark.parametrize("vain", [{"num_classes": 10}, {"in_chans": 1}, {"pretrained": False}])
def test_a_factory_refuses_what_it_would_not_see(module, vain):
    with pytest.raises(ValueError, match=f"without --{next(iter(vain))}"):
        ModelSource(spec=f"{module}:build", **vain)


def test_published_weights_for_other_images_are_an_error(monkeypatch):
    import robust_models

    monkeypatch.setattr(robust_models, "create_model", lambda *_, **__: nn.Conv2d(3, 4, 1))
    with pytest.raises(ValueError, match="3 channels, the data have 1"):
        ModelSource(spec="timm:resnet18").build(num_classes=4, in_chans=1)


@pytest.mark.parametrize(
    ("spec", "kind", "word"),
    [
        ("small_cnn_8", ValueError, "no weights: give --weights FILE, or --pretrained false"),
        ("nowhere.at_all:build", ValueError, r"cannot import 'nowhere\.at_all'"),
        ("mine:nothing", ValueError, "no function 'nothing'"),
        ("mine:number", TypeError, r"must return a torch\.nn\.Module, got int"),
        ("mine:broken", RuntimeError, r"mine:broken\(\) failed.*ZeroDivisionError"),
    ],
)
def test_what_cannot_be_built_is_an_error(module, spec, kind, word):
    with pytest.raises(kind, match=word):
        ModelSource(spec=spec).build(num_classes=10, in_chans=1)


def test_unknown_names_and_missing_files_are_errors(tmp_path):
    with pytest.raises(ValueError, match="small_cnn_9"):
        ModelSource(spec="small_cnn_9", pretrained=False).build(num_classes=10, in_chans=1)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        ModelSource(spec="small_cnn_8", weights=tmp_path / "none.safetensors").build(num_classes=10, in_chans=1)


def test_entries_of_the_zoo(monkeypatch, weights):
    import robust_models

    entry = robust_models.Entry(
        name="test/digits", arch="small_cnn_8", arch_source="robust_models", num_classes=10, urls=(weights.as_uri(),)
    )
    asked = []
    monkeypatch.setattr(
        robust_models, "pretrained", lambda name: asked.append(name) or robust_models.build_model(entry)
    )
    monkeypatch.setattr(robust_models, "get_entry", {entry.name: entry}.__getitem__)
    source = ModelSource(spec="zoo:test/digits")
    model = source.build(num_classes=10, in_chans=1)
    assert asked == ["test/digits"]
    assert source.describe(model, weights.parent)["pretrained"] is True
    own = ModelSource(spec="zoo:test/digits", weights=weights).build(num_classes=10, in_chans=1)
    assert asked == ["test/digits"]
    torch.manual_seed(0)
    expected = create_model("small_cnn_8").eval()
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(own(images), expected(images))
    with pytest.raises(
        ValueError, match="the entry 'zoo:test/digits' of the zoo says so itself: leave --num_classes out"
    ):
        ModelSource(spec="zoo:test/digits", num_classes=10)


def test_an_entry_that_is_not_in_the_zoo():
    with pytest.raises(ValueError, match="no entry of the zoo is called 'light/nothing'"):
        ModelSource(spec="zoo:light/nothing").build(num_classes=10, in_chans=3)
