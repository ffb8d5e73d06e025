"""CIFAR-10-C and CIFAR-100-C, from sparse files of the published form."""

import numpy as np
import pytest
from robust_bench.benchmarks import Options, cifar_c
from robust_bench.benchmarks.corruption_scores import CORRUPTIONS

ENTRIES = {entry.name: entry for entry in cifar_c.ENTRIES}
ROWS = 50_000


def sparse(file, shape=(ROWS, 32, 32, 3), dtype=np.uint8):
    return np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)


@pytest.fixture
def root(tmp_path):
    """All 15 files, black, but for the first image of every severity of fog."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    for corruption in CORRUPTIONS:
        sparse(folder / f"{corruption}.npy")
    fog = sparse(folder / "fog.npy")
    for severity in range(5):
        fog[severity * 10_000] = 51 * (severity + 1)
    fog.flush()
    np.save(folder / "labels.npy", np.tile(np.arange(10_000) % 10, 5).astype(np.uint8))
    return folder


def test_every_corruption_and_severity_is_a_part(root):
    parts = ENTRIES["cifar-10-c"].build(Options(data=root.parent)).parts
    assert [part.name for part in parts] == [
        f"cifar-10-c/{corruption}-{severity}" for corruption in CORRUPTIONS for severity in range(1, 6)
    ]
    fog = [part for part in parts if "fog" in part.name]
    assert [float(part.data[0][0].mean()) for part in fog] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [float(part.data[1][0].mean()) for part in fog] == [0.0] * 5
    assert [part.data[13][1] for part in fog] == [3] * 5
    assert all(len(part.data) == 10_000 for part in fog)
    (condition,) = fog[2].conditions
    assert condition.settings == {"kind": "corruption", "corruption": "fog", "severity": 3, "source": "files"}
    assert (fog[2].label, fog[2].num_classes) == ("cifar-10-c", 10)


def test_extra_corruptions_are_evaluated_where_they_are(root):
    sparse(root / "spatter.npy")
    parts = ENTRIES["cifar-10-c"].build(Options(data=root)).parts
    assert [part.name for part in parts[75:]] == [f"cifar-10-c/spatter-{severity}" for severity in range(1, 6)]


def test_a_missing_file_is_an_error_with_the_layout(root):
    (root / "snow.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"no array .*snow\.npy\. Expected DIR/CIFAR-10-C/<corruption>\.npy"):
        ENTRIES["cifar-10-c"].build(Options(data=root.parent))


@pytest.mark.parametrize("shape", [(ROWS - 1, 32, 32, 3), (ROWS, 3, 32, 32), (10_000, 5, 32, 32, 3)])
def test_a_file_of_another_shape_is_named(root, shape):
    sparse(root / "snow.npy", shape)
    with pytest.raises(ValueError, match=r"snow\.npy must have the shape \(50000, 32, 32, 3\), got .*zenodo"):
        ENTRIES["cifar-10-c"].build(Options(data=root.parent))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(10_000) % 10, r"labels\.npy must hold 50000 integers, got int64 \(10000,\)"),
        (np.zeros(ROWS), r"labels\.npy must hold 50000 integers, got float64"),
        (np.arange(ROWS) % 100, r"labels 0 to 99, expected 0 to 9: is it CIFAR-10\?"),
    ],
)
def test_other_labels_are_refused(root, labels, message):
    np.save(root / "labels.npy", labels)
    with pytest.raises(ValueError, match=message):
        ENTRIES["cifar-10-c"].build(Options(data=root.parent))


def test_the_sets_are_told_apart_by_their_labels(root):
    assert ENTRIES["cifar-10-c"].fits(root)
    assert not ENTRIES["cifar-100-c"].fits(root)
    with pytest.raises(FileNotFoundError, match="'cifar-100-c'"):
        ENTRIES["cifar-100-c"].build(Options(data=root))
    np.save(root / "labels.npy", np.arange(ROWS) % 100)
    assert ENTRIES["cifar-100-c"].fits(root)
