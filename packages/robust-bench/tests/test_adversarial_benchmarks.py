"""The analyses as benchmarks: what they are made of, and that they run."""

import pytest
import torch
from robust_bench import evaluate
from robust_bench.benchmarks import adversarial
from robust_bench.benchmarks.adversarial import ENTRIES, KINDS, Subject, entries
from robust_bench.benchmarks.analyses import (
    Analyses,
    Convergence,
    Effectiveness,
    Occlusion,
    SemanticScore,
    StepsCurve,
    TransferCurve,
)
from robust_bench.benchmarks.entry import Options
from robust_bench.part import Benchmark, Part
from robust_models import create_model, save_weights


@pytest.fixture
def subject(grey):
    part = Part(name="grey", data=grey, num_classes=2, in_chans=1, settings={"dataset": "grey"})
    return Subject(part=part, eps=0.1, patch_size=2)


def run(kind, subject, analyses, model, **options):
    parts = KINDS[kind].parts(f"grey-{kind}", subject, analyses)
    scores = adversarial._scores(f"grey-{kind}", KINDS[kind])
    return evaluate(model, Benchmark(name=f"grey-{kind}", parts=parts, scores=scores), **options)


def test_the_digits_have_four_that_need_no_further_model():
    mine = [entry for entry in ENTRIES if entry.name.startswith("digits")]
    assert [entry.name for entry in mine] == [
        "digits-steps",
        "digits-effectiveness",
        "digits-convergence",
        "digits-occlusion",
    ]
    for entry in mine:
        benchmark = entry.build(Options())
        assert (benchmark.name, benchmark.scores) == (entry.name, entry.scores)
        assert entry.layout is None
    clean, changed = mine[0].build(Options()).parts
    assert (clean.name, changed.name, changed.label, len(changed.data)) == ("digits", "digits-steps", "digits", 450)
    (some,) = ENTRIES[2].build(Options()).parts
    assert (some.name, some.label, len(some.data)) == (
        "digits-convergence",
        "digits, 100 images, evenly spaced",
        100,
    )


def test_other_data_gets_all_of_them_with_its_layout(subject):
    made = entries("grey", lambda options: subject.part, layout="Expected grey images", folders=("grey",))
    assert [entry.name for entry in made] == [f"grey-{kind}" for kind in KINDS]
    assert {entry.layout for entry in made} == {"Expected grey images"}
    assert made[5].build(Options()).parts[1].conditions[0].patch_size == 16


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_steps_end_at_the_worst_case_and_do_not_fall_any_more(model, subject, batch_size):
    """An eps of 0.06 makes the images at 0.45, 0.5 and 0.55 wrong beside the two of wrong labels."""
    result = run("steps", subject, Analyses(), model, batch_size=batch_size)
    accuracy = [row.correct for row in result.rows if row.metric == "accuracy"]
    assert accuracy[0] == 19
    assert accuracy[-1] == 16
    (fall,) = (row for row in result.rows if row.metric == "accuracy_fall")
    assert (fall.value, fall.benchmark) == (0.0, "grey")


def test_the_released_protocol_takes_every_second_image(model, subject):
    (part,) = KINDS["steps"].parts("grey-steps", subject, Analyses(steps=StepsCurve(protocol="orhan2019")))
    assert (part.name, part.label, len(part.data)) == ("grey-steps-orhan2019", "grey, every second image", 11)
    assert torch.equal(part.data.tensors[0], subject.part.data.tensors[0][::2])
    result = run("steps", subject, Analyses(steps=StepsCurve(protocol="orhan2019", steps=(5, 10))), model)
    assert [row.metric for row in result.rows] == ["accuracy"] * 3 + ["accuracy_fall"]


def test_effectiveness_and_convergence_run_on_small_settings(model, subject):
    analyses = Analyses(
        effectiveness=Effectiveness(steps=(1, 2), oracle_steps=6, starts=2),
        convergence=Convergence(steps=(1, 6), starts=3, images=7),
    )
    found = run("effectiveness", subject, analyses, model, batch_size=4)
    again = run("effectiveness", subject, analyses, model, batch_size=64)
    values = [(row.metric, row.value) for row in found.rows]
    assert [row.value for row in again.rows] == pytest.approx([value for _, value in values], rel=1e-4, abs=1e-6)
    assert [metric for metric, _ in values if metric != "accuracy"] == ["loss"] * 3 + [
        "attack_effectiveness",
        "attack_effectiveness_ratio",
    ] * 2
    spread = run("convergence", subject, analyses, model)
    assert {row.count for row in spread.rows} == {7}
    assert {row.benchmark for row in spread.rows} == {"grey, 7 images, evenly spaced"}
    by_steps = [row.value for row in spread.rows if row.metric == "loss_spread"]
    assert by_steps[0] == pytest.approx(by_steps[1], rel=1e-3)  # a straight path is as long in one step as in six
    assert by_steps[0] > 0


def test_occlusion_has_clean_worst_and_distribution(model, subject):
    result = run("occlusion", subject, Analyses(occlusion=Occlusion(masks=8)), model, batch_size=5)
    clean, worst = (row for row in result.rows if row.metric == "accuracy")
    spread = {row.settings["statistic"]: row.value for row in result.rows if row.metric == "accuracy_over_masks"}
    assert clean.correct == 19
    assert worst.value <= spread["minimum"] <= spread["median"] <= spread["maximum"] <= 1


def test_transfer_and_semantic_load_further_models(subject, tmp_path):
    torch.manual_seed(0)
    model = create_model("small_cnn_8", num_classes=2, in_chans=1)
    weights = tmp_path / "source.safetensors"
    save_weights(model, weights)
    analyses = Analyses(transfer=TransferCurve(source="small_cnn_8", weights=weights, eps=(0.1,), steps=3))
    result = run("transfer", subject, analyses, model)
    assert [row.settings["kind"] for row in result.rows] == ["clean", "transfer"]
    assert result.rows[1].condition == "PGD-3, Linf 0.1, made on small_cnn_8"


def test_without_a_source_or_a_judge_the_message_says_what_to_give(subject):
    with pytest.raises(ValueError, match=r"--analyses\.transfer\.source timm:resnext50_32x4d"):
        KINDS["transfer"].parts("grey-transfer", subject, Analyses())
    with pytest.raises(ValueError, match=r"--analyses\.semantic\.judges"):
        KINDS["semantic"].parts("grey-semantic", subject, Analyses())
    with pytest.raises(ValueError, match="images must be at least 1"):
        KINDS["convergence"].parts("grey-convergence", subject, Analyses(convergence=Convergence(images=0)))


def two_classes():
    """A judge that the command would name as package.module:factory."""
    torch.manual_seed(1)
    return create_model("small_cnn_8", num_classes=2, in_chans=1)


def test_judges_are_built_by_name(model, subject, monkeypatch):
    class Source:
        def __init__(self, *, spec, weights):
            assert weights is None

        def build(self, *, num_classes, in_chans):
            assert (num_classes, in_chans) == (2, 1)
            return two_classes()

    monkeypatch.setattr(adversarial, "ModelSource", Source)
    analyses = Analyses(semantic=SemanticScore(judges=("one", "other"), steps=2, images=None))
    result = run("semantic", subject, analyses, model)
    scores = [row for row in result.rows if row.metric == "semantic_accuracy"]
    assert [row.settings["judge"] for row in scores] == ["one", "other"]
    assert scores[0].value == scores[1].value
