"""ObjectNet's mapping files, border and benchmark."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.answer import Mapped
from robust_bench.benchmarks import Options
from robust_bench.benchmarks.objectnet import OBJECTNET
from robust_bench.datasets.objectnet import FILES, BorderCut, objectnet_classes
from robust_bench.preprocess import AsStored, Preprocess

# Line k of the names has the index 900 - 7 k: neither lines nor indices are in the order of the folders.
NAMES = ["desk lamp", "mouse, computer mouse", "crane", "analog clock", "digital clock", "crane", "nail"]
INDICES = {str(900 - 7 * line): line for line in range(len(NAMES))}


@pytest.fixture
def root(tmp_path):
    """Three object folders, two of which are classes of ImageNet; images with a red border of one pixel."""
    write(tmp_path)
    for number, folder in enumerate(("alarm_clock", "mouse", "spoon")):
        (tmp_path / "images" / folder).mkdir(parents=True)
        image = np.full((12, 14, 3), 40 * number, dtype=np.uint8)
        image[[0, -1]] = image[:, [0, -1]] = (255, 0, 0)
        Image.fromarray(image).save(tmp_path / "images" / folder / "1.png")
    return tmp_path


def write(root, *, overlap=None, names=None):
    mappings = root / "mappings"
    mappings.mkdir(exist_ok=True)
    folders = {"spoon": "Spoon", "mouse": "Computer mouse", "alarm_clock": "Alarm clock"}
    overlap = overlap or {"Computer mouse": "mouse, computer mouse", "Alarm clock": "analog clock; digital clock"}
    (mappings / FILES[0]).write_text(json.dumps(folders))
    (mappings / FILES[1]).write_text(json.dumps(overlap))
    (mappings / FILES[2]).write_text("\n".join(names or NAMES) + "\n")
    (mappings / FILES[3]).write_text(json.dumps(INDICES))


def test_the_indices_come_from_the_mapping_files(root):
    assert objectnet_classes(root / "mappings") == {"alarm_clock": (872, 879), "mouse": (893,)}


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_mapping_file_is_named(root, missing):
    (root / "mappings" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        objectnet_classes(root / "mappings")


@pytest.mark.parametrize(
    ("overlap", "message"),
    [
        ({"Alarm clock": "wall clock"}, "'wall clock' of .* is 0 times"),
        ({"Alarm clock": "crane"}, "'crane' of .* is 2 times"),
        ({"Fork": "nail"}, "object 'Fork', which"),
    ],
)
def test_mappings_that_do_not_fit_together_are_refused(root, overlap, message):
    write(root, overlap=overlap)
    with pytest.raises(ValueError, match=message):
        objectnet_classes(root / "mappings")


@pytest.mark.parametrize("text", ['{"a": ', "[1, 2]"])
def test_a_damaged_mapping_file_is_named(root, text):
    (root / "mappings" / FILES[1]).write_text(text)
    with pytest.raises(ValueError, match=FILES[1]):
        objectnet_classes(root / "mappings")


@pytest.mark.parametrize("pixels", [0, 1, 2])
def test_the_border_is_cut_before_anything_else(pixels):
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    side = 20 - 2 * pixels
    out = BorderCut(pixels=pixels, then=AsStored(stored=side)).transform()(Image.fromarray(image))
    inside = image[pixels : pixels + side, pixels : pixels + side]
    assert torch.equal(out, torch.from_numpy(inside.copy()).permute(2, 0, 1))


def test_the_border_is_part_of_the_settings():
    assert BorderCut(then=Preprocess(size=10)).settings["steps"].startswith("cut 2 pixels at every side, Resize(11")
    assert BorderCut(then=Preprocess(size=10)).settings["border"] == 2


def test_an_image_that_is_all_border_is_refused():
    with pytest.raises(ValueError, match="4 x 9 pixels has nothing inside a border of 2"):
        BorderCut(pixels=2).transform()(Image.new("RGB", (4, 9)))
    with pytest.raises(ValueError, match="at least 0"):
        BorderCut(pixels=-1)


def test_only_overlapping_objects_are_evaluated_without_their_border(root):
    (part,) = OBJECTNET.build(Options(data=root, preprocess=Preprocess(size=6, crop_share=1.0))).parts
    assert part.answer == Mapped(indices=((872, 879), (893,)))
    assert part.num_classes == 2
    assert [part.data.filename(index) for index in range(len(part.data))] == ["alarm_clock/1.png", "mouse/1.png"]
    image, label = part.data[1]
    assert label == 1
    torch.testing.assert_close(image, torch.full((3, 6, 6), 40 / 255))  # without red
    assert part.settings["answer"] == "among all 1000 classes, 3 of which make 2"
    assert part.settings["preprocessing"]["border"] == 2


def test_a_missing_object_folder_is_named_with_the_layout(root):
    (root / "images" / "mouse" / "1.png").unlink()
    (root / "images" / "mouse").rmdir()
    with pytest.raises(ValueError, match=r"lacks 1 of the 2 folders .* e\.g\. mouse\. Expected DIR/objectnet-1\.0"):
        OBJECTNET.build(Options(data=root))


def test_the_folder_is_found_below_data_and_as_data(root, tmp_path_factory):
    above = tmp_path_factory.mktemp("above")
    (above / "objectnet-1.0").symlink_to(root)
    for data in (root, above):
        assert len(OBJECTNET.build(Options(data=data)).parts[0].data) == 2
    with pytest.raises(FileNotFoundError, match=r"no data of the benchmark 'objectnet' in .*https://objectnet\.dev"):
        OBJECTNET.build(Options(data=root / "images"))
