"""ImageNet-A, -O and -R, from synthetic folders."""

import pkgutil

import numpy as np
import pytest
from PIL import Image
from robust_bench.answers import Answers
from robust_bench.benchmarks import Options, imagenet_subsets
from robust_bench.benchmarks.imagenet_subsets import adversarial_scores, anomaly_scores, rendition_scores
from robust_bench.datasets.imagenet_classes import ClassSet, imagenet_indices, imagenet_wnids
from robust_bench.metrics import auroc, average_precision, fpr_at_recall
from robust_bench.preprocess import Preprocess

ENTRIES = {entry.name: entry for entry in imagenet_subsets.ENTRIES}
SMALL = Preprocess(size=8, crop_share=1.0)


def listed(file):
    return sorted(pkgutil.get_data("timm.data", f"_info/{file}_synsets.txt").decode().split())


A, R = listed("imagenet_a"), listed("imagenet_r")


def tree(root, wnids, name="1.jpg"):
    root.mkdir()
    image = root.parent / "image.png"
    Image.new("RGB", (8, 8), (51, 102, 153)).save(image)
    for wnid in wnids:
        (root / wnid).mkdir()
        (root / wnid / name).symlink_to(image)
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    tree(data / "imagenet-a", A)
    tree(data / "imagenet-r", R)
    tree(data / "imagenet-o", A[::-1])  # its own list is not known here
    tree(data / "imagenet-val", imagenet_wnids(), "1.JPEG")
    return data


def build(name, data):
    return ENTRIES[name].build(Options(data=data, preprocess=SMALL))


def test_the_model_of_imagenet_a_chooses_among_its_classes(data):
    (part,) = build("imagenet-a", data).parts
    assert part.answer.indices == imagenet_indices(A)
    assert (part.num_classes, len(part.data)) == (200, 200)
    assert [part.data[index][1] for index in (0, 100, 199)] == [0, 100, 199]
    assert part.data.filename(100) == f"{A[100]}/1.jpg"
    assert part.settings["images_expected"] == 7_500
    assert part.settings["answer"] == "among 200 of 1000 classes"


def test_imagenet_r_comes_with_the_same_classes_of_the_validation_images(data, tmp_path):
    renditions, photographs = build("imagenet-r", data).parts
    assert (renditions.name, photographs.name) == ("imagenet-r", "imagenet-val-r")
    assert renditions.answer == photographs.answer
    assert [photographs.data.filename(index)[:9] for index in range(200)] == R
    assert photographs.settings["images_expected"] == 10_000
    (tmp_path / "imagenet-r").symlink_to(data / "imagenet-r")
    (alone,) = build("imagenet-r", tmp_path).parts
    assert alone.name == "imagenet-r"


def test_imagenet_o_needs_the_validation_images(data, tmp_path, monkeypatch):
    same = ClassSet(name="ImageNet-O", count=200, sha256=imagenet_subsets.IMAGENET_A.sha256)
    monkeypatch.setitem(imagenet_subsets._CLASSES, "o", same)
    outside, inside = build("imagenet-o", data).parts
    assert (outside.name, inside.name) == ("imagenet-o", "imagenet-val-o")
    assert outside.answer == inside.answer
    (tmp_path / "imagenet-o").symlink_to(data / "imagenet-o")
    with pytest.raises(FileNotFoundError, match="'imagenet-val'"):
        build("imagenet-o", tmp_path)


def test_other_classes_than_those_of_imagenet_o_are_refused(data):
    with pytest.raises(ValueError, match="200 class folders of ImageNet-O: found 200; the checksum of their"):
        build("imagenet-o", data)


def test_a_missing_class_is_named_with_the_layout(tmp_path):
    tree(tmp_path / "imagenet-a", A[1:])
    with pytest.raises(ValueError, match=rf"found 199; {A[0]} is missing\. .* Expected DIR/imagenet-a/<wnid>"):
        build("imagenet-a", tmp_path)


def answers(benchmark, right, confidences=None):
    count = len(right)
    return Answers(
        benchmark=benchmark,
        settings={"kind": "clean"},
        condition="clean",
        ids=np.arange(count),
        labels=np.zeros(count, dtype=np.int64),
        predictions=np.zeros(count, dtype=np.int64),
        confidences=np.asarray([0.5] * count if confidences is None else confidences, dtype=np.float32),
        right=np.asarray(right, dtype=np.bool_),
    )


def test_scores_of_imagenet_a():
    found = {"imagenet-a": (answers("imagenet-a", [1, 0, 0, 0] * 25),)}
    rows = {row.metric: row.value for row in adversarial_scores(found)}
    assert rows == {
        "rms_calibration_error": pytest.approx(0.25),
        "mean_absolute_calibration_error": pytest.approx(0.25),
        "aurra": pytest.approx(np.mean([np.ceil(most / 4) / most for most in range(1, 101)])),
    }
    assert list(adversarial_scores({})) == []


def test_scores_of_imagenet_o_are_of_both_groups():
    random = np.random.default_rng(0)
    outside, inside = random.beta(2, 3, 60), random.beta(3, 2, 240)
    found = {
        "imagenet-o": (answers("imagenet-o", [0] * 60, outside),),
        "imagenet-val-o": (answers("imagenet-val-o", [1] * 240, inside),),
    }
    rows = {row.metric: row for row in anomaly_scores(found)}
    scores = -np.concatenate([outside, inside]).astype(np.float32)
    positive = np.arange(300) < 60
    below = (outside[:, None] < inside[None]).mean()  # pairs in which the outsider is the less sure
    assert rows["auroc"].value == pytest.approx(below)
    assert rows["auroc"].value == pytest.approx(auroc(scores, positive))
    assert rows["average_precision"].value == pytest.approx(average_precision(scores, positive))
    assert rows["fpr_at_95_recall"].value == pytest.approx(fpr_at_recall(scores, positive))
    for row in rows.values():
        assert row.low <= row.value <= row.high
        assert (row.benchmark, row.count) == ("imagenet-o", 300)
    for part in found:
        assert list(anomaly_scores({part: found[part]})) == []


def test_what_is_lost_on_imagenet_r():
    found = {
        "imagenet-r": (answers("imagenet-r", [1] * 30 + [0] * 70),),
        "imagenet-val-r": (answers("imagenet-val-r", [1] * 40 + [0] * 10),),
    }
    (row,) = rendition_scores(found)
    assert (row.metric, row.value, row.count) == ("accuracy_drop", pytest.approx(0.5), 150)
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 100 + 0.8 * 0.2 / 50)
    assert row.low == pytest.approx(0.5 - spread, abs=0.03)
    assert row.high == pytest.approx(0.5 + spread, abs=0.03)
    for part in found:
        assert list(rendition_scores({part: found[part]})) == []
