"""The benchmarks beside people: where their files may lie, what a model is shown, and how it answers."""

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench import EvaluationWarning
from robust_bench.answers import Answers
from robust_bench.benchmarks import human
from robust_bench.benchmarks.entry import Options, is_there
from robust_bench.datasets.human_responses import COLUMNS
from robust_bench.datasets.stimulus import CATEGORIES, IMAGES
from robust_bench.metrics import decide
from robust_bench.preprocess import Preprocess

ENTRIES = {entry.name: entry for entry in human.ENTRIES}
CONTRAST = {  # of every picture, its condition and category
    "n03041632_1": ("c50", "knife"),
    "n03041632_2": ("c10", "knife"),
    "n02123045_3": ("c50", "cat"),
    "n02123045_4": ("c100", "cat"),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Sets of four pictures."""
    monkeypatch.setattr(human, "IMAGES", dict.fromkeys(IMAGES, 4))


def draw(file, grey=128):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (224, 224), grey).save(file)


def lay_contrast(folder):
    for number, (picture, (condition, category)) in enumerate(CONTRAST.items()):
        draw(folder / f"{number:04d}_cop_dnn_{condition}_{category}_10_{picture}.png", 10 * number)


def lay_cues(folder):
    for number, name in enumerate(("cat/cat1-elephant1", "cat/cat2-cat1", "dog/dog1-cat1", "dog/dog2-elephant1")):
        draw(folder / f"{name}.png", 10 * number)


def answer_contrast(folder, person, pictures=CONTRAST):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{person},1,{number},0.5,{category},{category},{condition},{number:04d}_cop_s01_{condition}_{category}_10_"
        f"{picture}.png"
        for number, (picture, (condition, category)) in enumerate(pictures.items(), start=1)
    ]
    (folder / f"contrast_{person}_session_1.csv").write_text("\n".join((",".join(COLUMNS), *rows)) + "\n")


def answers(part, model):
    """What the engine finds, without the engine."""
    pairs = [part.data[index] for index in range(len(part.data))]
    labels = np.array([label for _, label in pairs])
    predictions = part.answer(model(torch.stack([image for image, _ in pairs]))).argmax(dim=1).numpy()
    return Answers(
        benchmark=part.label,
        settings=part.conditions[0].settings,
        condition=part.conditions[0].label,
        ids=np.arange(len(labels)),
        labels=labels,
        predictions=predictions,
        confidences=np.ones(len(labels), dtype=np.float32),
        right=labels == predictions,
        names=tuple(part.data.filename(index) for index in range(len(labels))),
    )


def torn(images):
    """A model in two minds: one strong dog among weak ones, or all cats a little."""
    logits = torch.zeros(len(images), 1000)
    logits[:, 281:287] = 2.0
    logits[:, 151:269] = -2.0
    logits[:, 200] = 4.0
    return logits


def test_the_list():
    assert next(iter(ENTRIES)) == "cue-conflict"
    assert tuple(ENTRIES)[-1] == "model-vs-human"
    assert len(ENTRIES) == 18
    sets = {name.removeprefix("model-vs-human-") for name in ENTRIES} - {"model-vs-human"}
    assert sets == set(IMAGES)
    for entry in ENTRIES.values():
        assert "github.com/bethgelab/model-vs-human" in entry.layout
        assert entry.scores({}) == ()
    assert ENTRIES["cue-conflict"].about.startswith("1,280 pictures")


@pytest.mark.parametrize("place", ["model-vs-human/contrast", "model-vs-human/datasets/contrast", "contrast"])
@pytest.mark.parametrize("inside", ["dnn/session-1", ""])
def test_finds_a_set_in_every_layout(tmp_path, place, inside):
    lay_contrast(tmp_path / place / inside)
    entry = ENTRIES["model-vs-human-contrast"]
    assert is_there(entry, tmp_path)
    assert not is_there(ENTRIES["model-vs-human-rotation"], tmp_path)
    for data in (tmp_path, tmp_path / place):
        benchmark = entry.build(Options(data=data))
        (part,) = benchmark.parts
        assert (benchmark.name, part.name, part.label) == ("model-vs-human-contrast",) * 3
        assert (part.num_classes, len(part.data)) == (16, 4)
        assert [part.data[index][1] for index in range(4)] == [13, 13, 7, 7]
        assert part.settings["path"] == str(tmp_path / place)


def test_the_settings_tell_aggregation_and_preprocessing(tmp_path):
    lay_cues(tmp_path / "cue-conflict")
    build = ENTRIES["cue-conflict"].build
    (plain,) = build(Options(data=tmp_path)).parts
    assert plain.settings["aggregation"] == plain.answer.aggregation == "mean"
    assert plain.settings["preprocessing"]["steps"] == "none"
    assert plain.name == "cue-conflict"
    (largest,) = build(Options(data=tmp_path, aggregation="max", preprocess=Preprocess(size=112))).parts
    assert largest.settings["aggregation"] == largest.answer.aggregation == "max"
    assert largest.settings["preprocessing"]["steps"] == "Resize(112 from 224, bilinear, antialiased)"
    assert largest.data[0][0].shape == (3, 112, 112)
    assert largest.name == largest.label == "cue-conflict-max"
    (given,) = build(Options(data=tmp_path, size=64, preprocess=Preprocess(size=112))).parts
    assert given.data[0][0].shape == (3, 64, 64)


def test_the_two_aggregations_decide_as_the_metric_does(tmp_path):
    lay_cues(tmp_path / "cue-conflict")
    biases, decisions = {}, {}
    for aggregation in ("mean", "max"):
        benchmark = ENTRIES["cue-conflict"].build(Options(data=tmp_path, aggregation=aggregation))
        (part,) = benchmark.parts
        found = answers(part, torn)
        decisions[aggregation] = [CATEGORIES[index] for index in found.predictions]
        assert decisions[aggregation] == decide(torn(found.labels), aggregation)
        rows = benchmark.scores({part.name: (found,)})
        biases[aggregation] = next(row.value for row in rows if row.metric == "shape_bias")
        assert ENTRIES["cue-conflict"].scores({part.name: (found,)}) == rows
    assert decisions == {"mean": ["cat"] * 4, "max": ["dog"] * 4}
    # Of the conflicts cat-elephant, dog-cat and dog-elephant, cats take a shape and a texture, dogs two shapes.
    assert biases == {"mean": pytest.approx(1 / 2), "max": pytest.approx(2 / 2)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_answers_to_any_logits_are_those_of_the_metric(tmp_path, seed, aggregation):
    lay_cues(tmp_path / "cue-conflict")
    (part,) = ENTRIES["cue-conflict"].build(Options(data=tmp_path, aggregation=aggregation)).parts
    logits = 5 * torch.randn(200, 1000, generator=torch.Generator().manual_seed(seed))
    assert [CATEGORIES[index] for index in part.answer(logits).argmax(dim=1)] == decide(logits, aggregation)


@pytest.mark.parametrize(
    ("pictures", "people"),
    [
        ("model-vs-human/datasets/contrast/dnn/session-1", "model-vs-human/raw-data/contrast"),
        ("model-vs-human/contrast", "model-vs-human/raw-data/contrast"),
        ("model-vs-human/contrast", "raw-data/contrast"),
        ("contrast", "raw-data/contrast"),
    ],
)
def test_people_are_found_beside_the_sets(tmp_path, pictures, people):
    lay_contrast(tmp_path / pictures)
    for person in ("subject-01", "subject-02", "resnet50"):
        answer_contrast(tmp_path / people, person)
    entry = ENTRIES["model-vs-human-contrast"]
    benchmark = entry.build(Options(data=tmp_path))
    found = {part.name: (answers(part, torn),) for part in benchmark.parts}
    rows = {(row.settings.get("of"), row.metric): row for row in benchmark.scores(found)}
    # c50: a knife and a cat, c10: a knife; the model takes all for cats, people are always right.
    assert rows["model", "ood_accuracy"].value == pytest.approx(1 / 3)
    assert rows["people", "ood_accuracy"].value == 1.0
    assert rows["model and people", "observed_consistency"].value == pytest.approx((1 / 2 + 0) / 2)
    assert rows["model and people", "accuracy_difference"].value == pytest.approx((1 / 4 + 1) / 2)
    assert rows["pairs of people", "error_consistency"].value == 1.0
    assert rows["pairs of people", "error_consistency"].settings["people"] == {"contrast": 2}
    merged = entry.scores(found)
    assert {row.settings.get("of") for row in merged} == {None, "model"}


def test_people_who_saw_other_pictures_are_refused_before_anything_is_run(tmp_path):
    lay_contrast(tmp_path / "contrast")
    others = {
        (f"{picture}0" if condition == "c10" else picture): (condition, category)
        for picture, (condition, category) in CONTRAST.items()
    }
    answer_contrast(tmp_path / "raw-data" / "contrast", "subject-01")
    answer_contrast(tmp_path / "raw-data" / "contrast", "subject-02", others)
    with pytest.raises(
        ValueError,
        match=r"answers in .*raw-data.contrast are not to the pictures in .*contrast: subject-02 alone has 1 pictures "
        r"\(n03041632_20 \(condition c10\)\), the folder alone 1 pictures \(n03041632_2 \(condition c10\)\)\. Take",
    ):
        ENTRIES["model-vs-human-contrast"].build(Options(data=tmp_path))


def test_pictures_that_no_score_uses_need_no_answers(tmp_path):
    lay_contrast(tmp_path / "contrast")
    kept = {picture: what for picture, what in CONTRAST.items() if what[0] != "c100"}
    answer_contrast(tmp_path / "raw-data" / "contrast", "subject-01", kept)
    assert ENTRIES["model-vs-human-contrast"].build(Options(data=tmp_path)).parts


def test_a_missing_or_damaged_set_is_an_error_that_says_what_is_expected(tmp_path):
    build = ENTRIES["model-vs-human-contrast"].build
    expected = (
        r"Expected 1,280 files DIR/model-vs-human/contrast/dnn/session-1/.*Get them: https://github\.com/bethgelab/"
        r"model-vs-human/releases/download/v0\.1/contrast\.tar\.gz\. People's answers"
    )
    with pytest.raises(ValueError, match=rf"'model-vs-human-contrast' needs its images: give data.*{expected}"):
        build(Options())
    with pytest.raises(FileNotFoundError, match=rf"no data .* in {tmp_path}: looked for .*{expected}"):
        build(Options(data=tmp_path))
    (tmp_path / "contrast").mkdir()
    with pytest.raises(ValueError, match=rf"no pictures of the set contrast below .*{expected}"):
        build(Options(data=tmp_path))
    lay_contrast(tmp_path / "contrast")
    next((tmp_path / "contrast").glob("0000*")).unlink()
    with pytest.warns(EvaluationWarning, match=r"known to have 4 pictures, but 3 are in .*contrast: was it unpacked"):
        build(Options(data=tmp_path))
    draw(tmp_path / "contrast" / "n01440764" / "ILSVRC2012_val_00000293.png")
    with pytest.raises(ValueError, match=rf"got .*n01440764/ILSVRC2012_val_00000293\.png\. {expected}"):
        build(Options(data=tmp_path))


def lay(dataset, folder):
    """Four pictures of any set."""
    if dataset == "cue-conflict":
        lay_cues(folder)
    for number in range(4 if dataset != "cue-conflict" else 0):
        in_folders = dataset in ("edge", "silhouette")
        name = f"cat/cat{number}" if in_folders else f"{number}_x_dnn_{number * 30}_cat_10_n02123045_{number}"
        draw(folder / f"{name}.png")


def test_all_17_together(tmp_path):
    entry = ENTRIES["model-vs-human"]
    with pytest.raises(ValueError, match="needs its images"):
        entry.build(Options())
    for dataset in IMAGES:
        if dataset != "sketch":
            lay(dataset, tmp_path / "model-vs-human" / dataset)
    assert not is_there(entry, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"needs all 17 sets, but in .* are not: sketch\. Each set .*Expected"):
        entry.build(Options(data=tmp_path))
    lay("sketch", tmp_path / "sketch")
    assert is_there(entry, tmp_path)
    benchmark = entry.build(Options(data=tmp_path))
    assert [part.name for part in benchmark.parts] == [name for name in ENTRIES if name != "model-vs-human"]
    single = ENTRIES["model-vs-human-rotation"].build(Options(data=tmp_path)).parts[0]
    (shared,) = [part for part in benchmark.parts if part.name == single.name]
    assert shared.data.fingerprint == single.data.fingerprint
    assert (shared.settings, shared.answer, shared.label) == (single.settings, single.answer, single.label)
    found = {part.name: (answers(part, torn),) for part in benchmark.parts}
    (total,) = [row for row in benchmark.scores(found) if row.benchmark == "model-vs-human"]
    assert (total.metric, total.condition) == ("ood_accuracy", "17 sets")
    assert total.value == pytest.approx((16 * 1.0 + 2 / 4) / 17)
