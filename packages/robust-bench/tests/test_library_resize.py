"""Resizing by the libraries themselves, and by torch in their place."""

import sys

import numpy as np
import pytest
from PIL import Image
from robust_bench.datasets.library_resize import resized, resizing_by, resizing_name
from robust_bench.datasets.resizers import RESIZERS

PIL = {"nearest": 0, "lanczos": 1, "bilinear": 2, "cubic": 3, "box": 4, "hamming": 5}
OPENCV = {"nearest": 0, "bilinear": 1, "cubic": 2, "area": 3, "lanczos": 4}


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (299, 97, 3), dtype=np.uint8)


@pytest.mark.parametrize("resizer", RESIZERS)
def test_resizers_are_those_of_the_libraries(pixels, resizer):
    library, _, name = resizer.partition("-")
    if library == "opencv":
        cv2 = pytest.importorskip("cv2")
        expected = cv2.resize(pixels, (64, 48), interpolation=OPENCV[name])
    else:  # a tall image, where Pillow 13 would begin with the columns
        expected = np.array(Image.fromarray(pixels).resize((64, 299), PIL[name]).resize((64, 48), PIL[name]))
    assert np.array_equal(resized(pixels, (48, 64), resizer), expected)


@pytest.mark.parametrize("resizer", RESIZERS)
def test_torch_gives_the_same(pixels, resizer):
    if resizer.startswith("opencv"):
        pytest.importorskip("cv2")
    expected = resized(pixels, (48, 64), resizer).astype(int)
    found = resized(pixels, (48, 64), resizer, by="torch")
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= (0 if resizer.startswith("pil") else 1)
    part = pixels[3:90, 5:70]  # a view
    assert np.array_equal(resized(part, (9, 8), resizer, "torch"), resized(part.copy(), (9, 8), resizer, "torch"))


def test_torch_steps_in_where_opencv_is_missing(monkeypatch, pixels):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert resizing_by("pil-box") == "library"
    assert resizing_by("opencv-area") == "torch"
    assert resizing_name("opencv-area", "torch") == "torch"
    assert [resizing_name(name, "library") for name in ("pil-box", "opencv-area")] == ["Pillow", "OpenCV"]
    assert resized(pixels, (80, 60), "opencv-area", "torch").shape == (80, 60, 3)
    with pytest.raises(ModuleNotFoundError, match=r"cv2.*robust-bench\[system\]"):
        resized(pixels, (80, 60), "opencv-area")
