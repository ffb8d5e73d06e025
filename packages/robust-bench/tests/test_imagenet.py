"""ImageNet's validation images and the sets of all 1000 classes, from synthetic folders."""

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.answers import Answers
from robust_bench.benchmarks import Entry, Options, imagenet, is_there
from robust_bench.datasets.imagenet_classes import imagenet_wnids
from robust_bench.metrics import clopper_pearson
from robust_bench.preprocess import Preprocess

ENTRIES = {entry.name: entry for entry in imagenet.ENTRIES}
WNIDS = imagenet_wnids()


def tree(root, folders, name, size=(8, 8)):
    """One image in each class folder, whose red is that of the folder's place; all are links to a few files."""
    root.mkdir(parents=True)
    source = root.parent / f"{root.name}-source"
    source.mkdir()
    for red in range(10):
        Image.new("RGB", size, (20 * red, 0, 0)).save(source / f"{red}.png")
    for place, folder in enumerate(folders):
        (root / folder).mkdir()
        (root / folder / name).hardlink_to(source / f"{place % 10}.png")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with several sets beside each other."""
    data = tmp_path_factory.mktemp("data")
    tree(data / "imagenet-val" / "val", WNIDS, "ILSVRC2012_val_00000001.JPEG")
    tree(data / "sketch", WNIDS, "sketch_0.JPEG")
    tree(data / "stylized-imagenet" / "val", WNIDS, "1.png", size=(224, 224))
    tree(data / "imagenetv2-top-images-format-val", map(str, range(1000)), "a.jpeg")
    tree(data / "imagenet-v2-matched-frequency", (f"{number:04d}" for number in range(1000)), "a.jpeg")
    return data


def opened(name, **options):
    return ENTRIES[name].build(Options(preprocess=Preprocess(size=8, crop_share=1.0), **options)).parts[0]


@pytest.mark.parametrize("name", ["imagenet-val", "imagenet-sketch"])
def test_labels_are_the_ranks_of_wnids(data, name):
    part = opened(name, data=data)
    assert (part.name, part.num_classes, part.answer, len(part.data)) == (name, 1000, None, 1000)
    for index in (0, 7, 999):
        image, label = part.data[index]
        assert (label, WNIDS[label]) == (index, part.data.filename(index).partition("/")[0])
        assert float(image[0].mean()) == pytest.approx(20 * (index % 10) / 255)


@pytest.mark.parametrize("subset", ["top-images", "matched-frequency"], ids=["unpadded", "padded"])
def test_labels_of_v2_are_the_numbers_of_folders(data, subset):
    part = opened(f"imagenet-v2-{subset}", data=data)
    for index in (0, 9, 10, 99, 100, 999):
        image, label = part.data[index]
        assert label == index == int(part.data.filename(index).partition("/")[0])
        assert float(image[0].mean()) == pytest.approx(20 * (index % 10) / 255)
    assert part.settings["images_expected"] == 10_000


def test_stylized_images_are_not_resized(data):
    part = opened("stylized-imagenet", data=data)  # although the model's own resize would be 8
    assert part.data[3][0].shape == (3, 8, 8)
    assert part.settings["preprocessing"]["steps"] == "Resize(8 from 224, bilinear, antialiased)"
    (part,) = ENTRIES["stylized-imagenet"].build(Options(data=data)).parts
    image, label = part.data[3]
    assert (image.shape, label) == ((3, 224, 224), 3)
    assert part.settings["preprocessing"]["steps"] == "none"


def test_settings_say_what_was_evaluated(data):
    part = opened("imagenet-val", data=data)
    assert part.also == ("top5",)
    assert part.settings == {
        "dataset": "ImageNet-1k, validation",
        "variant": "files",
        "path": str(data / "imagenet-val" / "val"),
        "classes": 1000,
        "images_expected": 50_000,
        "preprocessing": Preprocess(size=8, crop_share=1.0).settings,
        "answer": "among all 1000 classes",
    }


def test_the_folder_itself_may_be_given(data):
    for inside in ("imagenet-val", "imagenet-val/val"):
        assert len(opened("imagenet-val", data=data / inside).data) == 1000
    assert len(opened("imagenet-v2-top-images", data=data / "imagenetv2-top-images-format-val").data) == 1000


def test_sets_of_the_same_classes_are_told_apart(data):
    places = {
        "imagenet-val": "imagenet-val",
        "imagenet-sketch": "sketch",
        "imagenet-v2-top-images": "imagenetv2-top-images-format-val",
        "imagenet-v2-matched-frequency": "imagenet-v2-matched-frequency",
    }
    for name in ENTRIES:
        for place, folder in places.items():
            assert ENTRIES[name].fits(data / folder) == (name == place), (name, folder)
    assert ENTRIES["stylized-imagenet"].fits(data / "stylized-imagenet")


def test_what_is_not_there_is_an_error_with_the_layout(data, tmp_path):
    assert is_there(ENTRIES["imagenet-val"], data)
    assert not is_there(ENTRIES["imagenet-v2-threshold0.7"], data)
    with pytest.raises(FileNotFoundError, match=r"'imagenet-v2-threshold0\.7' .* Expected DIR/imagenetv2-thres"):
        opened("imagenet-v2-threshold0.7", data=data)
    with pytest.raises(FileNotFoundError, match=r"https://image-net\.org"):
        opened("imagenet-val", data=tmp_path)


def test_a_missing_class_is_an_error_with_the_layout(tmp_path):
    tree(tmp_path / "imagenet-val", WNIDS[1:], "a.JPEG")
    with pytest.raises(ValueError, match=r"found 999; n01440764 is missing\. .* Expected DIR/imagenet-val"):
        opened("imagenet-val", data=tmp_path)
    tree(tmp_path / "imagenetv2-top-images-format-val", map(str, range(1, 1000)), "a.jpeg")
    with pytest.raises(ValueError, match=r"found 999; 0000 is missing\. .* Expected DIR/imagenetv2-top-images"):
        opened("imagenet-v2-top-images", data=tmp_path)


def test_some_classes_are_a_choice_among_these(data):
    wnids = (WNIDS[900], WNIDS[5], WNIDS[77])
    part = imagenet.validation_of(Options(data=data, preprocess=Preprocess(size=8)), wnids, "imagenet-val-x")
    assert part.answer.indices == (900, 5, 77)
    assert [part.data[index][1] for index in range(3)] == [0, 1, 2]
    assert [part.data.filename(index)[:9] for index in range(3)] == list(wnids)
    assert part.settings["images_expected"] == 150
    logits = torch.zeros(1, 1000)
    logits[0, 77], logits[0, 78] = 1.0, 2.0
    assert int(part.answer(logits).argmax()) == 2


def answers(top5, right):
    count = len(right)
    return Answers(
        benchmark="imagenet-val",
        settings={"kind": "clean"},
        condition="clean",
        ids=np.arange(count),
        labels=np.zeros(count, dtype=np.int64),
        predictions=np.zeros(count, dtype=np.int64),
        confidences=np.full(count, 0.75, dtype=np.float32),
        right=np.asarray(right, dtype=np.bool_),
        more={"top5": np.asarray(top5)},
    )


def test_scores_are_top_5_and_calibration():
    found = {"imagenet-val": (answers([1] * 90 + [0] * 10, [1] * 50 + [0] * 50),)}
    rows = {row.metric: row for row in imagenet.validation_scores(found)}
    assert list(rows) == ["top5_accuracy", "rms_calibration_error", "mean_absolute_calibration_error"]
    assert (rows["top5_accuracy"].value, rows["top5_accuracy"].count) == (0.9, 100)
    assert (rows["top5_accuracy"].low, rows["top5_accuracy"].high) == clopper_pearson(90, 100)
    assert rows["rms_calibration_error"].value == pytest.approx(0.25)  # one bin: 75 % sure, 50 % right
    assert list(imagenet.validation_scores({})) == []


def test_every_line_says_where_its_data_come_from():
    assert all(isinstance(entry, Entry) and "https://" in entry.layout for entry in imagenet.ENTRIES)
    assert len({name for entry in imagenet.ENTRIES for name in entry.folders}) == sum(
        len(entry.folders) for entry in imagenet.ENTRIES
    )
