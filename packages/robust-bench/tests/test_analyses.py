"""Settings of analyses: the published defaults, and what is refused."""

import pytest
import torch
from robust_bench.benchmarks.analyses import (
    Analyses,
    AttentionStability,
    Convergence,
    Effectiveness,
    Occlusion,
    SemanticScore,
    StepsCurve,
    TransferCurve,
)


def test_the_steps_curve_is_orhans():
    conditions = StepsCurve().conditions()
    assert [each.settings["steps"] for each in conditions] == [10, 20, 30, 40, 50]
    assert {(each.settings["attack"], each.settings["eps"], each.settings["step_size"]) for each in conditions} == {
        ("PGD", 0.06, 2 / 255)
    }
    released = StepsCurve(protocol="orhan2019").conditions()
    assert {
        (each.settings["attack"], each.settings["relative_eps"], each.settings["measure"], each.settings["unreached"])
        for each in released
    } == {("TransferAttack", 0.06, "range", "clean")}


def test_effectiveness_is_against_200_steps_of_a_scaled_length():
    conditions = Effectiveness().conditions(4 / 255)
    assert [each.settings["steps"] for each in conditions] == [1, 2, 5, 10, 200]
    for each in conditions:
        assert each.settings["step_size"] == pytest.approx(1.5 * 4 / 255 / each.settings["steps"])
        assert (each.starts, each.settings["random_start"]) == (3, True)
    assert Effectiveness(eps=0.5).conditions(4 / 255)[0].settings["eps"] == 0.5


def test_convergence_has_twenty_starts():
    conditions = Convergence().conditions(0.1)
    assert {each.starts for each in conditions} == {20}
    assert [each.settings["steps"] for each in conditions] == [1, 2, 5, 10, 50, 100, 200]


def test_the_transfer_curve_is_orhans(model):
    conditions = TransferCurve().conditions(model, "source")
    assert [each.settings["eps"] for each in conditions] == [0.01, 0.02, 0.04, 0.06, 0.08, 0.1]
    assert {(each.settings["steps"], each.settings["step_size"]) for each in conditions} == {(10, 2 / 255)}
    released = TransferCurve(protocol="orhan2019").conditions(model, "source")
    assert [each.settings["relative_eps"] for each in released] == [0.01, 0.02, 0.04, 0.06, 0.08, 0.1]
    assert {each.settings["measure"] for each in released} == {"image"}


def test_the_others_too():
    semantic = SemanticScore().condition({"judge": torch.sin}, 4 / 255)
    assert (semantic.settings["steps"], semantic.settings["eps"]) == (100, 4 / 255)
    assert semantic.settings["step_size"] == pytest.approx(1.5 * 4 / 255 / 100)
    assert Occlusion().condition(16).settings["masks"] == 100
    assert Occlusion(patch_size=8).condition(16).patch_size == 8
    assert AttentionStability().condition(2).settings["patch_size"] == 2
    assert Analyses().effectiveness == Effectiveness()


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (lambda: StepsCurve(steps=()).conditions(), "steps must ascend and be at least one number"),
        (lambda: StepsCurve(steps=(10, 10)).conditions(), r"steps must ascend .* got \[10, 10\]"),
        (lambda: StepsCurve(protocol="best").conditions(), "'worst_case' or 'orhan2019', got 'best'"),
        (lambda: Effectiveness(oracle_steps=5).conditions(0.1), r"oracle_steps .* \[1, 2, 5, 10, 5\]"),
        (lambda: TransferCurve(eps=(0.2, 0.1)).conditions(torch.sin, "s"), "eps must ascend"),
    ],
)
def test_impossible_settings_are_refused(conditions, message):
    with pytest.raises(ValueError, match=message):
        conditions()
