"""Where textures come from, what is wrong with a source, and what a source is called."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.corruptions.frost_sources import load, name_of_textures


@pytest.fixture(autouse=True)
def forget():
    """Forget what was read: these tests change what a source holds."""
    load.cache_clear()
    yield
    load.cache_clear()


def save(folder, name, height=40, width=50, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(levels).save(folder / name)
    return torch.from_numpy(levels).permute(2, 0, 1)


def test_reads_grey_and_transparent_files_as_colours(tmp_path):
    Image.new("LA", (50, 40), (90, 128)).save(tmp_path / "a.png")
    assert (load(tmp_path)[0] == 90).all()


def test_the_package_is_found_but_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "imagecorruptions"
    picture = save(package / "frost", "frost1.png")
    (package / "__init__.py").write_text("raise ImportError('does not work with the installed NumPy')\n")
    information = tmp_path / "imagecorruptions-1.1.2.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: imagecorruptions\nVersion: 1.1.2\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert torch.equal(load("package")[0], picture)
    assert name_of_textures("package") == "imagecorruptions 1.1.2"


def test_an_absent_package_is_an_error_that_teaches(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps imagecorruptions.*folder"):
        load("package")


def test_bad_folders_are_errors_that_teach(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no textures of frost in .*\.png"):
        load(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read the texture .*a\.png"):
        load(tmp_path)


def test_a_folder_is_named_after_its_contents(tmp_path):
    save(tmp_path / "one", "a.png", seed=1)
    save(tmp_path / "two", "other.png", seed=1)
    save(tmp_path / "three", "a.png", seed=2)
    names = [name_of_textures(tmp_path / folder) for folder in ("one", "two", "three")]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("folder sha256:")
    assert name_of_textures("procedural") == "procedural-v1"
