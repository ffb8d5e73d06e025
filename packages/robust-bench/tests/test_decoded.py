"""Decoders and resizers of ImageNet-S, and the benchmark over them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.answers import Answers
from robust_bench.benchmarks import Options, entry, imagenet_s
from robust_bench.datasets import decoders
from robust_bench.datasets.decoded import Reading, read_encoded
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.warning import EvaluationWarning


@pytest.fixture
def pixels():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC))


def encoded(pixels, kind):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("decoder", list(decoders.DECODERS))
def test_a_lossless_file_is_the_same_for_every_decoder(pixels, decoder):
    pytest.importorskip({"opencv": "cv2", "ffmpeg": "av"}.get(decoder, "PIL"))
    assert np.array_equal(decoders.DECODERS[decoder](encoded(pixels, "PNG")), pixels)
    found = decoders.DECODERS[decoder](encoded(pixels, "JPEG")).astype(int)
    assert np.abs(found - pixels.astype(int)).mean() < 12  # colours in their order, at their places
    with pytest.raises((ValueError, OSError)):
        decoders.DECODERS[decoder](b"nothing")


def test_there_are_the_published_cells():
    assert len(decoders.RESIZERS) == 11
    assert len(decoders.CELLS) == len(set(decoders.CELLS)) == 33


@pytest.mark.parametrize("resizer", decoders.RESIZERS)
def test_resizers_are_those_of_the_libraries(pixels, resizer):
    library, _, name = resizer.partition("-")
    if library == "opencv":
        cv2 = pytest.importorskip("cv2")
        ways = {"nearest": 0, "bilinear": 1, "cubic": 2, "area": 3, "lanczos": 4}
        expected = cv2.resize(pixels, (64, 64), interpolation=ways[name])
    else:
        ways = {"nearest": 0, "lanczos": 1, "bilinear": 2, "cubic": 3, "box": 4, "hamming": 5}
        expected = np.array(Image.fromarray(pixels).resize((64, 64), ways[name]))
    assert np.array_equal(decoders.resized(pixels, 64, resizer), expected)


def test_a_file_is_resized_on_both_sides_and_cut(pixels, tmp_path):
    (tmp_path / "cat").mkdir()
    Image.fromarray(pixels).save(tmp_path / "cat" / "0.png")
    data = LabelledFolder(
        tmp_path, {"cat": 3}, preprocess=Reading(decoder="pil", resizer="pil-box", size=56), read=read_encoded
    )
    image, label = data[0]
    expected = np.array(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BOX))[4:60, 4:60]
    assert torch.equal(image, torch.from_numpy(expected).permute(2, 0, 1).float() / 255)
    assert (label, len(data), data.filename(0)) == (3, 1, "cat/0.png")
    other = LabelledFolder(
        tmp_path, {"cat": 3}, preprocess=Reading(decoder="pil", resizer="pil-cubic", size=56), read=read_encoded
    )
    assert data.fingerprint != other.fingerprint
    (tmp_path / "cat" / "0.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot read the image .*0\.png"):
        data[0]


@pytest.mark.parametrize(
    ("changes", "word"), [({"decoder": "dali"}, "decoder"), ({"resizer": "x"}, "resizer"), ({"size": 0}, "size")]
)
def test_unknown_names_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        Reading(**{"decoder": "pil", "resizer": "pil-box"} | changes)


def test_the_score_is_mean_and_population_deviation_over_cells():
    rights = {("pil", "pil-box"): [1, 1, 0, 1], ("opencv", "pil-box"): [1, 0, 0, 1]}
    found = {
        f"imagenet-s/{decoder}-{resizer}": (
            Answers(
                benchmark="imagenet-s",
                settings={"kind": "decoding", "decoder": decoder, "resizer": resizer},
                condition="",
                ids=np.arange(4),
                labels=np.zeros(4, dtype=np.int64),
                predictions=np.zeros(4, dtype=np.int64),
                confidences=np.ones(4, dtype=np.float32),
                right=np.array(right, dtype=bool),
            ),
        )
        for (decoder, resizer), right in rights.items()
    }
    mean, deviation = imagenet_s.scores(found)
    assert (mean.metric, mean.value) == ("mean_accuracy", pytest.approx(0.625))
    assert (deviation.metric, deviation.value) == ("accuracy_deviation", pytest.approx(0.125))
    assert mean.settings["cells"] == ["pil pil-box", "opencv pil-box"]
    assert mean.condition == "2 of 33 cells"
    assert mean.low <= mean.value <= mean.high
    assert list(imagenet_s.scores({})) == []


def test_missing_packages_are_told(monkeypatch):
    monkeypatch.setattr(decoders.importlib.util, "find_spec", lambda _: None)
    assert decoders.missing() == ("cv2", "av")
    assert decoders.available_cells() == tuple(("pil", name) for name in decoders.RESIZERS if name.startswith("pil"))


@pytest.mark.shared_data
def test_the_benchmark_on_real_files(shared, tmp_path, monkeypatch):
    import zipfile

    with zipfile.ZipFile(shared / "imagenet_sample" / "imagenet_sample.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.setattr(imagenet_s, "missing", lambda: ("cv2",))
    with pytest.warns(EvaluationWarning, match="cv2"):
        benchmark = entry("imagenet-s").build(Options(data=tmp_path))
    assert [part.name for part in benchmark.parts[:2]] == ["imagenet-s/pil-pil-nearest", "imagenet-s/pil-pil-box"]
    image, label = benchmark.parts[2].data[7]
    assert (image.shape, label) == ((3, 224, 224), 7)
    clean = entry("imagenet-val").build(Options(data=tmp_path)).parts[0].data[7][0]
    assert clean.shape == image.shape
    assert not torch.equal(clean, image)
