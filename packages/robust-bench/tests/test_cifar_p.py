"""CIFAR-10-P and CIFAR-100-P, from sparse files of the published form."""

import numpy as np
import pytest
from robust_bench.benchmarks import Options, cifar_p
from robust_bench.benchmarks.cifar_p import EXTRA_PERTURBATIONS, PERTURBATIONS

ENTRIES = {entry.name: entry for entry in cifar_p.ENTRIES}


def sparse(file, shape=(10_000, 31, 32, 32, 3)):
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)


@pytest.fixture
def root(tmp_path):
    """All ten files, black, but for one frame of one sequence of tilt."""
    folder = tmp_path / "CIFAR-10-P"
    folder.mkdir()
    for perturbation in PERTURBATIONS:
        sparse(folder / f"{perturbation}.npy", (10_000, 16 if perturbation == "translate" else 31, 32, 32, 3))
    tilt = sparse(folder / "tilt.npy")
    tilt[9_999, 30] = 255
    tilt.flush()
    np.save(folder / "labels.npy", np.arange(10_000) % 10)
    return folder


def test_every_perturbation_is_a_part_of_sequences(root):
    parts = {part.name: part for part in ENTRIES["cifar-10-p"].build(Options(data=root.parent)).parts}
    assert list(parts) == [f"cifar-10-p/{perturbation}" for perturbation in PERTURBATIONS]
    frames, label = parts["cifar-10-p/tilt"].data[9_999]
    assert (frames.shape, label) == ((31, 3, 32, 32), 9)
    assert frames.mean(dim=(1, 2, 3)).tolist() == [0.0] * 30 + [1.0]
    assert parts["cifar-10-p/translate"].data[0][0].shape == (16, 3, 32, 32)
    noisy = {name for name, part in parts.items() if part.conditions[0].noise}
    assert noisy == {"cifar-10-p/gaussian_noise", "cifar-10-p/shot_noise"}


def test_the_ten_of_the_published_evaluation_have_spatter_for_snow():
    assert len(set(PERTURBATIONS)) == 10
    assert "spatter" in PERTURBATIONS
    assert "snow" in EXTRA_PERTURBATIONS


def test_extra_perturbations_are_evaluated_where_they_are(root):
    sparse(root / "shear.npy")
    parts = ENTRIES["cifar-10-p"].build(Options(data=root)).parts
    assert parts[-1].name == "cifar-10-p/shear"


def test_without_labels_the_test_images_are_needed_beside_it(root):
    (root / "labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither labels\.npy .* nor cifar-10-batches-py in .* Expected DIR"):
        ENTRIES["cifar-10-p"].build(Options(data=root.parent))


@pytest.mark.parametrize("shape", [(50_000, 32, 32, 3), (9_999, 31, 32, 32, 3), (10_000, 31, 3, 32, 32)])
def test_a_file_of_another_shape_is_named(root, shape):
    sparse(root / "tilt.npy", shape)
    with pytest.raises(ValueError, match=r"tilt\.npy must have the shape \(10000, frames, 32, 32, 3\), got"):
        ENTRIES["cifar-10-p"].build(Options(data=root.parent))


def test_a_missing_file_is_an_error_with_the_layout(root):
    (root / "scale.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"no array .*scale\.npy\. Expected DIR/CIFAR-10-P"):
        ENTRIES["cifar-10-p"].build(Options(data=root))


def test_the_set_that_was_never_published_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"make_cifar_p\.py"):
        ENTRIES["cifar-100-p"].build(Options(data=tmp_path))
