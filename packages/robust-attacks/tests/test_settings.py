"""Wrong settings are refused when the attack is made, with a sentence that says what to write instead."""

import pytest
import torch
from robust_attacks import FGSM, PGD, Linf, cross_entropy, targeted

BALL = Linf(eps=0.1)
each_attack = pytest.mark.parametrize("make", [FGSM, PGD])


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
def test_what_both_attacks_refuse(make, options, error, message):
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
