"""Wrong settings are refused when the attack is made, with a sentence that says what to write instead."""

import pytest
import torch
from robust_attacks import FGSM, MIFGSM, PGD, Linf, cross_entropy, targeted
from robust_attacks._settings import check_count, check_number

BALL = Linf(eps=0.1)
each_attack = pytest.mark.parametrize("make", [FGSM, MIFGSM, PGD])


@each_attack
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threat": 8 / 255}, TypeError, r"must say norm and radius, .*threat=Linf\(eps=8/255\)\), got 0.03.*float"),
        ({"threat": "Linf"}, TypeError, r"threat=Linf\(eps=8/255\)\), got 'Linf'"),
        ({"threat": Linf}, TypeError, r"threat=Linf\(eps=8/255\)\), got <class"),
        ({"threat": None}, TypeError, "got None"),
        ({"loss": "ce"}, TypeError, r"loss must be a function of logits and labels, as loss=cross_entropy, got 'ce'"),
        ({"loss": None}, TypeError, "loss must be a function"),
        ({"loss": torch.nn.CrossEntropyLoss}, TypeError, "loss must be a function of logits and labels, .*got <class"),
        ({"loss": targeted}, TypeError, r"targeted turns a loss round: pass loss=targeted\(cross_entropy\)"),
        ({"step_size": 0.0}, ValueError, "step_size must be positive and finite, or None for .*eps.*, got 0.0"),
        ({"step_size": -0.1}, ValueError, "step_size must be positive and finite"),
        ({"step_size": float("nan")}, ValueError, "step_size must be positive and finite"),
        ({"step_size": float("inf")}, ValueError, "step_size must be positive and finite, .*got inf"),
        ({"step_size": 1e39}, ValueError, r"step_size must be positive and finite, .*got 1e\+39"),
        ({"step_size": "0.1"}, TypeError, "step_size must be a number, or None for .*, got '0.1'"),
        ({"step_size": True}, TypeError, "step_size must be a number"),
    ],
)  # fmt: skip
def test_what_all_attacks_refuse(make, options, error, message):
    with pytest.raises(error, match=f"{make.__name__}: .*{message}"):
        make(**({"threat": BALL} | options))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 10.0}, TypeError, r"steps must be an int, got 10.0 \(float\)"),
        ({"steps": True}, TypeError, "steps must be an int, got True"),
        ({"restarts": 0}, ValueError, "restarts must be in 1..256, got 0"),
        ({"restarts": 257}, ValueError, "restarts must be in 1..256, got 257"),
        ({"restarts": "3"}, TypeError, r"restarts must be an int, got '3' \(str\)"),
        ({"coordinates": 0}, ValueError, "coordinates must be at least 1, got 0"),
        ({"coordinates": 0.5}, TypeError, "coordinates must be an int, got 0.5"),
    ],
)
def test_what_pgd_refuses(options, error, message):
    with pytest.raises(error, match=f"PGD: {message}"):
        PGD(threat=BALL, **options)


@each_attack
@pytest.mark.parametrize("step_size", [None, 1, 1e-3, 3.4e38])
@pytest.mark.parametrize(
    "loss", [targeted(cross_entropy), torch.nn.CrossEntropyLoss(reduction="none")], ids=["ours", "torch"]
)
def test_what_is_right_passes_and_works(make, step_size, loss, rows):
    images = torch.full((2, 1, 2, 2), 0.5)
    found = make(threat=BALL, step_size=step_size, loss=loss)(rows((1, 2, 2)), images, torch.tensor([0, 2]))
    assert (BALL.distance(images, found) <= 0.1).all()


@pytest.mark.parametrize(
    ("number", "limits", "error", "message"),
    [
        ("1", {}, TypeError, r"must be a number, got '1' \(str\)"),
        (True, {}, TypeError, "must be a number, got True"),
        ((0.1, 0.2), {}, TypeError, r"must be a number, got \(0.1, 0.2\) \(tuple\)"),
        (-0.5, {}, ValueError, "must be at least 0, and finite, got -0.5"),
        (torch.inf, {}, ValueError, "must be at least 0, and finite, got inf"),
        (torch.nan, {}, ValueError, "must be at least 0, and finite, got nan"),
        (1e39, {}, ValueError, r"must be at least 0, and finite, got 1e\+39"),  # more than float32 holds
        (0, {"open_below": True}, ValueError, "must be above 0, and finite, got 0"),
        (1.5, {"most": 1}, ValueError, "must be at least 0 and at most 1, and finite, got 1.5"),
        (1, {"most": 1, "open_above": True}, ValueError, "must be at least 0 and below 1, and finite, got 1"),
        (0.4, {"least": 0.5, "most": 2.5}, ValueError, "must be at least 0.5 and at most 2.5, and finite, got 0.4"),
    ],
)
def test_numbers_out_of_range_are_refused(number, limits, error, message):
    with pytest.raises(error, match=f"A: gamma {message}"):
        check_number("A", "gamma", number, **limits)


@pytest.mark.parametrize(
    ("number", "limits"),
    [
        (0, {}),
        (3.4e38, {}),
        (1, {"most": 1}),
        (torch.finfo(torch.float64).tiny, {"open_below": True}),
        (0.999, {"most": 1, "open_above": True}),
    ],
)
def test_numbers_in_range_are_handed_back_as_floats(number, limits):
    found = check_number("A", "gamma", number, **limits)
    assert type(found) is float
    assert found == number


def test_counts_may_start_elsewhere_and_end():
    check_count("A", "layer", 0, least=0)
    with pytest.raises(ValueError, match="A: layer must be at least 0, got -1"):
        check_count("A", "layer", -1, least=0)
    with pytest.raises(ValueError, match=r"A: layer must be in 0\.\.3, got 4"):
        check_count("A", "layer", 4, least=0, most=3)
    with pytest.raises(TypeError, match=r"A: layer must be an int, got 1.0 \(float\)"):
        check_count("A", "layer", 1.0, least=0)
