"""The registry of benchmarks."""

import pytest
from PIL import Image
from robust_bench import benchmarks, evaluate
from robust_bench.benchmarks import Sweep
from robust_bench.corruptions import available
from robust_bench.preprocess import Preprocess


@pytest.fixture
def root(tmp_path):
    for label, name in enumerate(("cat", "dog", "owl")):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.effect_noise((40, 50), 20 + 10 * label).convert("RGB").save(tmp_path / name / f"{index}.png")
    return tmp_path


OWN = [name for name in benchmarks.names() if name.startswith(("digits", "folder"))]
OTHER_MODELS = ("folder-transfer", "folder-semantic")  # these need further models


def conditions(*asked, **settings):
    return [condition for part in benchmarks.load(*asked, **settings).parts for condition in part.conditions]


def test_every_name_loads_and_says_what_it_is(root):
    for name in (name for name in OWN if name not in OTHER_MODELS):
        benchmark = benchmarks.load(name, root if name.startswith("folder") else None)
        assert benchmark.name == name
        assert benchmarks.entry(name).about
        for part in benchmark.parts:
            assert part.label.partition(",")[0] == name.partition("-")[0]
            assert part.settings["classes"] == part.num_classes
            assert part.data[0][0].shape[0] == part.in_chans


def test_the_conditions_are_the_documented_ones(root):
    kinds = {
        name: [condition.settings["kind"] for condition in conditions(name)]
        for name in ("digits", "digits-c", "digits-pgd")
    }
    assert kinds["digits"] == ["clean"]
    assert kinds["digits-c"] == ["clean"] + ["corruption"] * 5 * len(available(8, 8))
    assert kinds["digits-pgd"] == ["clean"] + ["attack"] * 5
    attack = conditions("digits-pgd")[3].settings
    assert (attack["eps"], attack["steps"], attack["restarts"], attack["norm"]) == (0.15, 20, 3, "Linf")
    assert conditions("folder-pgd", root)[3].settings["eps"] == 4 / 255


@pytest.mark.parametrize(("size", "preset"), [(32, "cifar"), (64, "tiny_imagenet"), (224, "imagenet")])
def test_the_corruptions_constants_follow_the_models_size(root, size, preset):
    _, part = benchmarks.load("folder-c", root, preprocess=Preprocess(size=size)).parts
    assert part.conditions[0].settings["preset"] == preset
    assert part.settings["preprocessing"]["size"] == size
    assert part.data[0][0].shape == (3, size, size)


def test_the_digits_use_the_smallest_constants():
    assert conditions("digits-c")[1].settings["preset"] == "cifar"


def test_a_sweep_is_set_as_asked():
    sweep = Sweep(norm="L2", eps=(0.5, 1.0), steps=3, restarts=1)
    labels = [condition.label for condition in conditions("digits-pgd", attack=sweep)]
    assert labels == ["clean", "PGD-3, L2 0.5", "PGD-3, L2 1"]


@pytest.mark.parametrize("eps", [0.1, (0.1,), (0.1, 0.1)])
def test_one_eps_is_measured_once(eps):
    assert [condition.label for condition in Sweep(eps=eps).conditions(())] == ["PGD-20 × 3, Linf 0.1"]


@pytest.mark.parametrize(
    ("sweep", "word"),
    [
        (Sweep(norm="L2"), "give eps for the norm L2"),
        (Sweep(eps=()), "at least one eps"),
        (Sweep(norm="L0", eps=(1.0,)), "unknown norm"),
        (Sweep(steps=0), "steps"),
    ],
)
def test_impossible_sweeps_are_refused(sweep, word):
    with pytest.raises(ValueError, match=word):
        benchmarks.load("digits-pgd", attack=sweep)


def test_errors_name_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="choose from digits, digits-c"):
        benchmarks.load("digits-x")
    with pytest.raises(ValueError, match="choose from digits, digits-c"):
        benchmarks.entry("digits-x")
    with pytest.raises(ValueError, match="in vain"):
        benchmarks.load("digits", tmp_path)
    with pytest.raises(ValueError, match="give data"):
        benchmarks.load("folder")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        benchmarks.load("folder", tmp_path / "nowhere")


def test_a_folder_is_evaluated_the_same_with_workers(root):
    def guess(images):
        return images.std(dim=(2, 3)).sort(dim=1).values

    benchmark = benchmarks.load("folder-c", root, preprocess=Preprocess(size=32))
    one, two = (evaluate(guess, benchmark, batch_size=4, workers=workers) for workers in (0, 1))
    assert [row.correct for row in one.rows] == [row.correct for row in two.rows]
