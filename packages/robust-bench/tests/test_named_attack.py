"""Attacks by name."""

import pytest
import torch
from robust_attacks import APGD, L1, L2, PGD, CarliniWagner, DeepFool, ImageRandom, Linf, auto_attack, dlr
from robust_bench.conditions import Attacked, Suite
from robust_bench.named_attack import NAMES, named_attack, pixel_units


@pytest.mark.parametrize(
    ("given", "value"),
    [("4/255", 4 / 255), (" 8 / 255 ", 8 / 255), ("0.0157", 0.0157), ("1e-3", 0.001), (0.5, 0.5), (0, 0.0)],
)
def test_sizes_as_people_write_them(given, value):
    assert pixel_units(given) == value


@pytest.mark.parametrize("given", ["four", "4/0", "nan", "1/2/3", ""])
def test_other_sizes_are_refused(given):
    with pytest.raises(ValueError, match="a fraction such as 4/255"):
        pixel_units(given)


def test_settings_reach_the_attack():
    settings = {"steps": 5, "restarts": 2, "step_size": "1/255", "loss": "dlr"}
    threat = Linf(eps=4 / 255)
    assert named_attack("pgd", norm="Linf", eps=4 / 255, settings=settings) == Attacked(
        attack=PGD(threat=threat, steps=5, restarts=2, step_size=1 / 255, loss=dlr), all_images=True
    )
    assert named_attack("APGD", norm="L1", eps=12, settings={"targets": 3}).attack == APGD(threat=L1(eps=12), targets=3)


def test_suites():
    standard = named_attack("autoattack", norm="L2", eps=0.5, settings={})
    assert standard == Suite(suite=auto_attack(L2(eps=0.5)))
    assert named_attack("auto-attack", norm="Linf", eps=0.1, settings={"version": "rand"}).suite.name == "rand"


def test_attacks_without_a_threat_count_within_eps():
    assert named_attack("deepfool", norm="Linf", eps=0.1, settings={}).suite.stages == {
        "deepfool": DeepFool(norm="Linf")
    }
    suite = named_attack("carlini-wagner", norm="L2", eps=0.5, settings={"steps": 10}).suite
    assert (suite.threat, suite.stages) == (L2(eps=0.5), {"carliniwagner": CarliniWagner(steps=10)})
    model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 0 * images[:, 0, 0, 0] + 0.8), dim=1)  # noqa: E731
    images = torch.full((1, 1, 1, 2), 0.5)  # the boundary is 0.14 away
    for eps, broken in ((0.13, False), (0.16, True)):
        attack = named_attack("ddn", norm="L2", eps=eps, settings={})
        adversarial = attack.change(model, images, torch.tensor([0]), ImageRandom(0, torch.tensor([0])))
        assert torch.equal(adversarial, images) is not broken


@pytest.mark.parametrize("name", NAMES)
def test_every_name_makes_an_attack_that_moves_nothing_at_eps_0(name):
    attack = named_attack(name, norm="L2", eps=0, settings={"queries": 10} if name == "square" else {})
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    images, labels = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    if name in ("carliniwagner", "autoattack"):  # the same, but slow
        return
    changed = attack.change(model, images, labels, ImageRandom(0, torch.arange(2)))
    assert torch.equal(changed, images)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("pdg", {}, "unknown attack 'pdg': choose from pgd, fgsm"),
        ("pgd", {"norm": "L3"}, "unknown norm 'L3'"),
        ("fgsm", {"settings": {"steps": 3}}, "'fgsm' has no setting 'steps': it has step_size, random_start"),
        ("autoattack", {"settings": {"steps": 3}}, "it has version"),
        ("autoattack", {"settings": {"version": "old"}}, "version must be one of"),
        ("pgd", {"settings": {"loss": "l2"}}, "unknown loss 'l2': choose from cross_entropy, margin, dlr"),
        ("pgd", {"settings": {"steps": 0}}, "steps must be at least 1"),
        ("pgd", {"eps": -1.0}, "eps must be a finite number >= 0"),
        ("pgd", {"eps": float("nan")}, "eps must be a finite number >= 0"),
        ("pgd", {"eps": 4.0}, "did you mean 4 / 255"),
        ("ddn", {}, "DDN minimises the L2 norm, got Linf: give --norm L2"),
    ],
)
def test_what_does_not_fit_is_an_error_that_helps(name, changes, message):
    with pytest.raises(ValueError, match=message):
        named_attack(name, **{"norm": "Linf", "eps": 0.1, "settings": {}} | changes)
