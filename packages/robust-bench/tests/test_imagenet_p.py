"""ImageNet-P, from synthetic folders."""

import numpy as np
import pytest
from robust_bench.benchmarks import Options, imagenet_p
from robust_bench.benchmarks.imagenet_p import EXTRA_PERTURBATIONS, PERTURBATIONS
from robust_bench.datasets.imagenet_classes import imagenet_wnids
from robust_bench.metrics import ALEXNET_FLIP_PROBABILITIES

av = pytest.importorskip("av")
ENTRIES = {entry.name: entry for entry in imagenet_p.ENTRIES}
WNIDS = imagenet_wnids()


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Three grey frames of 224 x 224 as the one video of all classes."""
    path = tmp_path_factory.mktemp("perturbation") / "one"
    path.mkdir()
    with av.open(str(path.parent / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.height = stream.width = 224
        stream.pix_fmt = "yuv444p"
        for grey in (0, 100, 200):
            frame = np.full((224, 224, 3), grey, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    for wnid in WNIDS:
        (path / wnid).mkdir()
        (path / wnid / "ILSVRC2012_val_00000001.mp4").symlink_to(path.parent / "video.mp4")
    return path


def grid(root, one, names=PERTURBATIONS):
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).symlink_to(one)
    return root


def build(data, name="imagenet-p", **options):
    return ENTRIES[name].build(Options(data=data, **options)).parts


def test_every_perturbation_is_a_part_of_sequences(one, tmp_path):
    grid(tmp_path / "ImageNet-P", one)
    parts = build(tmp_path)
    assert [part.name for part in parts] == [f"imagenet-p/{name}" for name in PERTURBATIONS]
    tilt = parts[PERTURBATIONS.index("tilt")]
    frames, label = tilt.data[998]
    assert (frames.shape, label) == ((3, 3, 224, 224), 998)
    assert frames.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 100 / 255, 200 / 255], abs=0.01)
    assert [part.conditions[0].noise for part in parts] == [name.endswith("_noise") for name in PERTURBATIONS]
    assert tilt.conditions[0].settings["perturbation"] == "tilt"
    assert tilt.settings["decoder"] == f"PyAV {av.__version__}"
    assert tilt.settings["preprocessing"]["steps"] == "none"


def test_a_model_of_another_size_gets_one_resize(one, tmp_path):
    grid(tmp_path / "ImageNet-P", one)
    assert build(tmp_path, size=64)[0].data[0][0].shape == (3, 3, 64, 64)


def test_groups_and_extra_perturbations_are_found(one, tmp_path):
    grid(tmp_path / "noise", one, PERTURBATIONS[:2])
    grid(tmp_path / "blur", one, PERTURBATIONS[2:4])
    grid(tmp_path / "weather", one, PERTURBATIONS[4:6])
    grid(tmp_path / "digital", one, PERTURBATIONS[6:])
    grid(tmp_path / "validation", one, EXTRA_PERTURBATIONS[1:2])
    assert len(build(tmp_path)) == 11


def test_a_missing_perturbation_is_named_with_the_layout(one, tmp_path):
    root = grid(tmp_path / "imagenet-p", one)
    (root / "rotate").unlink()
    with pytest.raises(FileNotFoundError, match=r"rotate is missing in .*Expected DIR/imagenet-p/<perturbation>"):
        build(tmp_path)


def test_a_missing_class_is_named(one, tmp_path):
    root = grid(tmp_path / "imagenet-p", one)
    (root / "rotate").unlink()
    for wnid in WNIDS[:-1]:
        (root / "rotate" / wnid).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"rotate does not hold the 1000 .* n15075141 is missing"):
        build(tmp_path)


def test_other_difficulties_take_other_noises_and_wider_steps(one, tmp_path):
    root = grid(tmp_path / "imagenet-p", one)
    with pytest.raises(FileNotFoundError, match=r"gaussian_noise_2 is missing in .* noises end in _2"):
        build(tmp_path, "imagenet-p-2")
    grid(root, one, ["gaussian_noise_2", "shot_noise_2", "speckle_noise_2"])
    parts = build(tmp_path, "imagenet-p-2")
    assert parts[0].name == "imagenet-p-2/gaussian_noise"
    assert parts[0].data.listing.path.name == "gaussian_noise_2"
    assert parts[2].data.listing.path.name == "motion_blur"
    assert parts[-1].data.listing.path.name == "speckle_noise_2"
    assert {part.conditions[0].difficulty for part in parts} == {2}
    assert {part.label for part in parts} == {"imagenet-p"}


def test_the_ten_are_those_that_alexnet_is_known_for():
    assert set(PERTURBATIONS) == set(ALEXNET_FLIP_PROBABILITIES)
    assert not set(PERTURBATIONS) & set(EXTRA_PERTURBATIONS)
