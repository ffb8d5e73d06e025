"""Decoders and resizers of ImageNet-S, and the benchmark over them."""

import io
import sys
import zipfile

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from robust_bench.answers import Answers
from robust_bench.benchmarks import Options, entry, imagenet_s
from robust_bench.datasets import decoders
from robust_bench.datasets.colour_path import COLOUR_PATHS
from robust_bench.datasets.decoded import Reading, read_encoded
from robust_bench.datasets.imagenet_classes import imagenet_wnids
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.datasets.library_resize import resizing_by
from robust_bench.datasets.resizers import resize
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
    ("changes", "word"),
    [
        ({"decoder": "dali"}, "unknown decoder"),
        ({"resizer": "x"}, "unknown resizer"),
        ({"colour": "x"}, "unknown colour"),
        ({"by": "x"}, "'library' or by 'torch'"),
        ({"size": 0}, "size"),
    ],
)
def test_unknown_names_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        Reading(**{"decoder": "pil", "resizer": "pil-box"} | changes)


def test_settings_say_who_resized():
    pytest.importorskip("cv2")
    library = Reading(decoder="pil", resizer="opencv-area")
    torch_ = Reading(decoder="pil", resizer="opencv-area", by="torch")
    assert (library.settings["resized_by"], torch_.settings["resized_by"]) == ("OpenCV", "torch")
    assert "opencv-area (computed by torch) to 256 x 256" in torch_.settings["steps"]
    labels = [imagenet_s.Decoded(reading=reading).label for reading in (library, torch_)]
    assert labels == ["pil, opencv-area", "pil, opencv-area (by torch)"]
    settings = imagenet_s.Decoded(reading=torch_).settings
    assert settings == {
        "kind": "decoding", "decoder": "pil", "resizer": "opencv-area", "resized_by": "torch", "colour": "rgb",
        "decoder_version": f"Pillow {PIL.__version__}",
    }  # fmt: skip


def test_settings_have_the_versions_of_the_libraries_that_are_used():
    cv2, av = pytest.importorskip("cv2"), pytest.importorskip("av")
    pillow, opencv, pyav = f"Pillow {PIL.__version__}", f"OpenCV {cv2.__version__}", f"PyAV {av.__version__}"
    expected = {
        ("pil", "pil-box", "library"): {"decoder_version": pillow, "resizer_version": pillow},
        ("ffmpeg", "opencv-area", "library"): {"decoder_version": pyav, "resizer_version": opencv},
        ("opencv", "pil-box", "torch"): {"decoder_version": opencv},
    }
    for (decoder, resizer, by), versions in expected.items():
        reading = Reading(decoder=decoder, resizer=resizer, by=by)
        for settings in (reading.settings, imagenet_s.Decoded(reading=reading).settings):
            assert {name: value for name, value in settings.items() if name.endswith("version")} == versions


@pytest.mark.parametrize(
    ("package", "resizer", "decoder"), [("cv2", "opencv-area", "pil"), ("av", "pil-box", "ffmpeg")]
)
def test_another_version_is_other_data(tmp_path, monkeypatch, package, decoder, resizer):
    module = pytest.importorskip(package)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(b"")

    def fingerprint(by):
        reading = Reading(decoder=decoder, resizer=resizer, by=by)
        return LabelledFolder(tmp_path, {"cat": 3}, preprocess=reading, read=read_encoded).fingerprint

    before, by_torch = fingerprint("library"), fingerprint("torch")
    assert fingerprint("library") == before
    monkeypatch.setattr(module, "__version__", "0.0.1")
    assert fingerprint("library") != before
    assert (fingerprint("torch") == by_torch) == (package == "cv2")  # OpenCV did nothing there


def test_torch_reads_what_the_libraries_read(pixels):
    content = encoded(pixels, "PNG")
    for resizer in decoders.RESIZERS:
        if resizer.startswith("opencv"):
            pytest.importorskip("cv2")
        found, expected = (
            Reading(decoder="pil", resizer=resizer, size=56, by=by).read(content).int() for by in ("torch", "library")
        )
        assert found.shape == (3, 56, 56)
        assert (found - expected).abs().max() <= (0 if resizer.startswith("pil") else 1)


def test_colours_take_their_path_before_the_image_is_resized(pixels):
    reading = Reading(decoder="pil", resizer="pil-box", size=56, colour="420-nearest")
    path = COLOUR_PATHS["420-nearest"](torch.from_numpy(pixels).permute(2, 0, 1)[None])
    expected = resize(path, (64, 64), "pil-box")[0, :, 4:60, 4:60]
    assert torch.equal(reading.read(encoded(pixels, "PNG")), expected)
    assert "420-nearest" in reading.settings["steps"]
    assert imagenet_s.Decoded(reading=reading).label == "pil, pil-box, 420-nearest"


def answers(benchmark, right, **settings):
    return Answers(
        benchmark=benchmark,
        settings={"kind": "decoding"} | settings,
        condition="",
        ids=np.arange(4),
        labels=np.zeros(4, dtype=np.int64),
        predictions=np.zeros(4, dtype=np.int64),
        confidences=np.ones(4, dtype=np.float32),
        right=np.array(right, dtype=bool),
    )


def test_the_score_is_mean_and_population_deviation_over_cells():
    cell = {"resizer": "opencv-area", "colour": "rgb"}
    first = answers("imagenet-s", [1, 1, 0, 1], decoder="pil", resized_by="torch", **cell)
    second = answers("imagenet-s", [1, 0, 0, 1], decoder="opencv", resized_by="OpenCV", **cell)
    found = {"imagenet-s/pil-opencv-area": (first,), "imagenet-s/opencv-opencv-area": (second,)}
    mean, deviation = imagenet_s.scores(found)
    assert (mean.metric, mean.value) == ("mean_accuracy", pytest.approx(0.625))
    assert (deviation.metric, deviation.value) == ("accuracy_deviation", pytest.approx(0.125))
    assert mean.settings["cells"] == ["pil, opencv-area (by torch)", "opencv, opencv-area"]
    assert mean.condition == "2 of 33 cells"
    assert mean.low <= mean.value <= mean.high
    assert list(imagenet_s.scores({})) == []


def test_colours_have_a_score_of_their_own():
    cell = {"decoder": "pil", "resizer": "pil-bilinear", "resized_by": "Pillow"}
    plain = answers("imagenet-s", [1, 1, 1, 1], colour="rgb", **cell)
    shifted = answers("imagenet-s:colour", [0, 0, 0, 1], colour="601-read-as-709", **cell)
    kept = answers("imagenet-s:colour", [0, 1, 1, 1], colour="601-full", **cell)
    found = {
        "imagenet-s/pil-pil-bilinear": (plain,),
        "imagenet-s:colour/601-read-as-709": (shifted,),
        "imagenet-s:colour/601-full": (kept,),
    }
    mean, _ = imagenet_s.scores(found)
    assert (mean.value, mean.settings["cells"]) == (1.0, ["pil, pil-bilinear"])
    mean, deviation = imagenet_s.colour_scores(found)
    assert (mean.benchmark, mean.value, deviation.value) == ("imagenet-s:colour", 0.5, 0.25)
    assert (mean.condition, mean.settings["cells"]) == ("2 of 11 cells", ["601-read-as-709", "601-full"])


def test_only_decoders_can_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "av", None)
    assert decoders.missing() == {"cv2": "not installed", "av": "not installed"}
    assert decoders.available_cells() == tuple(("pil", name) for name in decoders.RESIZERS)
    with pytest.raises(ModuleNotFoundError, match=r"cv2.*robust-bench\[system\]"):
        decoders.opencv(b"")


@pytest.fixture
def broken_opencv(tmp_path, monkeypatch):
    """An OpenCV that lacks a library of the system, which it tells at the first import only, as the real one does."""
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text(
        "import sys\n"
        "if hasattr(sys, 'loading_of_cv2'):\n"
        "    raise ImportError('recursion is detected')\n"
        "sys.loading_of_cv2 = True\n"
        "raise ImportError('libGL.so.1: cannot open shared object file')\n"
    )
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    decoders._error_of_import.cache_clear()
    yield
    decoders._error_of_import.cache_clear()
    vars(sys).pop("loading_of_cv2", None)


def test_a_library_that_cannot_be_imported_is_missing_and_the_reason_is_told(broken_opencv):
    for _ in range(2):
        assert decoders.missing()["cv2"] == "libGL.so.1: cannot open shared object file"
    assert not [cell for cell in decoders.available_cells() if cell[0] == "opencv"]
    assert resizing_by("opencv-area") == "torch"
    with pytest.raises(ImportError, match=r"package cv2, which is installed but cannot be imported: libGL\.so\.1"):
        decoders.opencv(b"")


def test_the_warning_has_the_reason(broken_opencv, tmp_path):
    for wnid in imagenet_wnids():
        (tmp_path / "val" / wnid).mkdir(parents=True)
    with pytest.warns(EvaluationWarning, match=r"the 33 cells .*cv2: libGL\.so\.1: cannot open .*pip install"):
        benchmark = entry("imagenet-s").build(Options(data=tmp_path))
    by = {part.name: part.settings["preprocessing"]["resized_by"] for part in benchmark.parts}
    assert by["imagenet-s/pil-opencv-area"] == "torch"
    assert "imagenet-s/opencv-pil-box" not in by


@pytest.fixture(scope="module")
def real_files(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with zipfile.ZipFile(shared / "imagenet_sample" / "imagenet_sample.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.shared_data
def test_the_benchmark_on_real_files(real_files, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.warns(EvaluationWarning, match="11 of the 33 cells .*cv2: not installed"):
        benchmark = entry("imagenet-s").build(Options(data=real_files))
    assert len(benchmark.parts) == 22
    assert [part.name for part in benchmark.parts[:2]] == ["imagenet-s/pil-pil-nearest", "imagenet-s/pil-pil-box"]
    image, label = benchmark.parts[2].data[7]
    assert (image.shape, label) == ((3, 224, 224), 7)
    assert benchmark.parts[2].conditions[0].settings["resized_by"] == "Pillow"
    by_torch = benchmark.parts[8]
    assert by_torch.name == "imagenet-s/pil-opencv-area"
    assert by_torch.settings["preprocessing"]["resized_by"] == "torch"
    assert by_torch.data[7][0].shape == (3, 224, 224)
    clean = entry("imagenet-val").build(Options(data=real_files)).parts[0].data[7][0]
    assert clean.shape == image.shape
    assert not torch.equal(clean, image)


@pytest.mark.shared_data
def test_the_colours_on_real_files(real_files):
    benchmark = entry("imagenet-s:colour").build(Options(data=real_files))
    assert [part.name.partition("/")[2] for part in benchmark.parts] == list(COLOUR_PATHS)
    images = {part.name.partition("/")[2]: part.data[7][0] for part in benchmark.parts}
    published = Reading(decoder="pil", resizer="pil-bilinear")
    file = benchmark.parts[0].data.listing.file(7)
    assert torch.equal(images["rgb"], read_encoded(file, name="", transform=published.read))
    for name, image in images.items():
        difference = float((image - images["rgb"]).abs().mean()) * 255
        assert difference == 0 if name == "rgb" else 0 < difference < (1 if name.startswith(("601-f", "709-f")) else 20)
