"""Sequences in video files."""

import importlib
import pickle

import numpy as np
import pytest
import torch
from robust_bench.datasets.video import Videos, pyav
from robust_bench.preprocess import AsStored
from torch.utils.data import DataLoader

STORED = AsStored(stored=32)


def write(file, frames):
    """Encode frames as the published ones were: H.264 with all colours at full resolution, one frame per second."""
    av = pytest.importorskip("av")
    file.parent.mkdir(exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"crf": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def moving(count, seed, size=32):
    """Smooth pictures that move by a pixel from frame to frame."""
    coarse = torch.rand((1, 3, 6, 6), generator=torch.Generator().manual_seed(seed))
    wide = torch.nn.functional.interpolate(coarse, size=(size, size + count), mode="bicubic").clamp(0, 1)[0]
    frames = torch.stack([wide[:, :, start : start + size] for start in range(count)])
    return frames.mul(255).round().to(torch.uint8)


@pytest.fixture
def root(tmp_path):
    for number, (folder, file) in enumerate((("n1", "b.mp4"), ("n1", "a.mp4"), ("n2", "c.mp4"))):
        write(tmp_path / folder / file, moving(9, number).permute(0, 2, 3, 1).numpy())
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_frames_come_all_and_in_order(root, workers):
    data = Videos(root, {"n1": 4, "n2": 2}, preprocess=STORED)
    assert [data.filename(index) for index in range(len(data))] == ["n2/c.mp4", "n1/a.mp4", "n1/b.mp4"]
    ((videos, labels),) = DataLoader(data, 3, num_workers=workers)
    assert videos.shape == (3, 9, 3, 32, 32)
    assert labels.tolist() == [2, 4, 4]
    for video, seed in zip(videos, (2, 1, 0), strict=True):
        distances = torch.cdist(video.flatten(1), (moving(9, seed) / 255).flatten(1))
        assert distances.argmin(dim=1).tolist() == list(range(9))  # frame t is nearest to what was encoded as t
        assert float((video - moving(9, seed) / 255).abs().mean()) < 2 / 255


def test_another_input_size_takes_one_resize(root):
    data = Videos(root, {"n2": 0}, preprocess=AsStored(stored=32, size=16))
    assert data[0][0].shape == (9, 3, 16, 16)


def test_a_video_of_the_wrong_size_is_named(root):
    with pytest.raises(ValueError, match=r"cannot read the video .*c\.mp4: expected 64 x 64 pixels, got 32 x 32"):
        Videos(root, {"n2": 0}, preprocess=AsStored(stored=64))[0]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_video_is_named(root, share):
    file = root / "n1" / "b.mp4"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"cannot read the video .*b\.mp4"):
        Videos(root, {"n1": 0}, preprocess=STORED)[1]


def test_a_video_with_fewer_frames_is_named(root):
    write(root / "n1" / "b.mp4", moving(7, 0).permute(0, 2, 3, 1).numpy())
    data = Videos(root, {"n1": 0}, preprocess=STORED)
    assert data.frames == 9
    with pytest.raises(ValueError, match=r"b\.mp4 has 7 frames, .*a\.mp4 has 9"):
        data[1]


def test_it_travels_to_other_processes(root):
    data = Videos(root, {"n1": 0}, preprocess=STORED)
    copy = pickle.loads(pickle.dumps(data))
    assert np.array_equal(copy[0][0], data[0][0])
    assert copy.fingerprint == data.fingerprint
    assert data.fingerprint != Videos(root, {"n1": 0}, preprocess=AsStored(stored=32, size=16)).fingerprint


def test_without_pyav_the_error_says_what_to_install(tmp_path, monkeypatch):
    real = importlib.import_module

    def missing(name, package=None):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "robust-bench\[system\]"'):
        Videos(tmp_path, {}, preprocess=STORED)
    with pytest.raises(ModuleNotFoundError):
        pyav()
