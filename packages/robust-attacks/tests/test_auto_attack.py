"""The suites: their contents, few classes, randomised models, and the published results on stored models."""

from dataclasses import replace

import pytest
import torch
from robust_attacks import L1, L2, Linf, dlr
from robust_attacks.apgd import APGD
from robust_attacks.auto_attack import auto_attack
from robust_attacks.fab import FAB
from robust_attacks.square import Square
from torch import nn

THREAT = Linf(eps=8 / 255)


def test_standard_is_what_was_published():
    for threat in (THREAT, L2(eps=0.5)):
        assert auto_attack(threat).stages == {
            "apgd-ce": APGD(threat=threat, steps=100, restarts=1),
            "apgd-t": APGD(threat=threat, steps=100, targets=9),
            "fab-t": FAB(threat=threat, steps=100, targets=9),
            "square": Square(threat=threat, queries=5000, p_init=0.8, rescale_schedule=False),
        }
    sparse = auto_attack(L1(eps=12)).stages
    assert sparse["apgd-ce"] == APGD(threat=L1(eps=12), steps=100, restarts=5)
    assert sparse["apgd-t"] == APGD(threat=L1(eps=12), steps=100, targets=5)
    assert sparse["fab-t"] == FAB(threat=L1(eps=12), steps=100, targets=9)


def test_plus_and_rand_are_what_was_published():
    assert auto_attack(THREAT, "plus").stages == {
        "apgd-ce": APGD(threat=THREAT, restarts=5),
        "apgd-dlr": APGD(threat=THREAT, restarts=5, loss=dlr),
        "fab": FAB(threat=THREAT, restarts=5),
        "square": Square(threat=THREAT),
        "apgd-t": APGD(threat=THREAT, targets=9),
        "fab-t": FAB(threat=THREAT, targets=9),
    }
    assert auto_attack(THREAT, "rand").stages == {
        "apgd-ce": APGD(threat=THREAT, eot=20),
        "apgd-dlr": APGD(threat=THREAT, loss=dlr, eot=20),
    }


def test_a_suite_with_other_numbers_has_another_name():
    fast = auto_attack(THREAT, "fast")
    assert fast.name == "fast"
    assert fast.stages == {
        "apgd-ce": APGD(threat=THREAT, steps=50),
        "apgd-t": APGD(threat=THREAT, steps=50, targets=3),
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((THREAT, "standart"), ValueError, "version must be one of standard, plus, rand, fast, got 'standart'"),
        ((L1(eps=12), "plus"), ValueError, "plus is published for Linf and L2 only"),
        ((0.03,), TypeError, "threat must say norm and radius"),
    ],
)
def test_refuses_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        auto_attack(*arguments)


class Few(nn.Module):
    """K classes with boundaries among the images, for any K; each logit is a smooth bump of the image."""

    def __init__(self, classes, shape, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, *shape, generator=generator, dtype=torch.float64))

    def forward(self, x):
        x = x.double() - 0.5
        x = x + 0.2 * torch.sin(9 * x)
        return torch.stack([(x * weight).sum(dim=(1, 2, 3)) for weight in self.weight], dim=1)


def small(suite):
    """The same attacks with fewer steps: a test of the accounts, not of strength."""
    fewer = {"APGD": {"steps": 8}, "FAB": {"steps": 5}, "Square": {"queries": 20}}
    return replace(suite, attacks={name: replace(a, **fewer[type(a).__name__]) for name, a in suite.stages.items()})


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 9, 12])
@pytest.mark.parametrize("version", ["standard", "plus"])
def test_few_classes_work_and_are_noted(classes, version):
    images = torch.rand(6, 1, 5, 3, generator=torch.Generator().manual_seed(0))
    model = Few(classes, (1, 5, 3)).eval()
    labels = model(images).argmax(dim=1)
    report = small(auto_attack(Linf(eps=0.05), version)).run(model, images, labels)
    assert report.classes == classes
    notes = "\n".join(report.notes)
    assert (f"apgd-t: {classes} classes leave {classes - 1} targets, not 9" in notes) == (classes < 10)
    assert (f"fab-t: {classes} classes leave {classes - 1} targets, not 9" in notes) == (classes < 10)
    assert ("the targeted loss is z_t - z_y" in notes) == (classes == 2)
    assert ("the targeted loss is (z_t - z_y) / (z_(1) - z_(3))" in notes) == (classes == 3)
    assert ("apgd-dlr: with 2 classes the DLR loss is the margin" in notes) == (classes == 2 and version == "plus")
    verdict = model(report.adversarial).argmax(dim=1) == labels
    assert torch.equal(verdict, report.robust)
    assert int(report.robust.sum()) < 6


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 9), (4, 2, 2), (3, 7, 5)], ids=str)
@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.3), L1(eps=0.8)], ids=lambda threat: threat.name)
def test_any_shape_works(shape, threat):
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    model = Few(4, shape).eval()
    labels = model(images).argmax(dim=1)
    report = small(auto_attack(threat)).run(model, images, labels)
    assert bool((threat.distance(images, report.adversarial) <= threat.eps * (1 + threat.tolerance)).all())
    one = small(auto_attack(threat)).run(model, images[1:2], labels[1:2], torch.tensor([1]))
    assert torch.equal(one.adversarial, report.adversarial[1:2])


def test_a_model_with_one_output_is_told_what_to_return():
    with pytest.raises(ValueError, match=r"for one output z return two logits \(0, z\)"):
        auto_attack(THREAT).run(lambda x: x.mean(dim=(1, 2, 3))[:, None], torch.rand(2, 1, 4, 4), torch.zeros(2).long())


def test_rand_judges_by_fresh_draws():
    class Noisy(nn.Module):
        def forward(self, x):
            value = x.mean(dim=(1, 2, 3)) - 0.5 + 0.01 * torch.randn(len(x))
            return torch.stack((value, 0 * value, 0 * value - 1), dim=1)

    images = torch.tensor([0.515, 0.9]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4).clone()
    labels = torch.zeros(2, dtype=torch.int64)
    suite = small(auto_attack(Linf(eps=0.03), "rand", seed=1))
    report = suite.run(Noisy(), images, labels)
    assert report.robust.tolist() == [False, True]
    assert report.misclassified[1] == 0
    assert 0.7 < report.misclassified[0] <= 1  # the mean lies 1.5 deviations beyond the boundary
    assert report.one_draw[1]
    assert any("own randomness belongs to the batch" in note for note in report.notes)
    assert not any(flag.name == "randomised" for flag in report.flags)
    again = suite.run(Noisy(), images, labels)
    assert torch.equal(again.adversarial, report.adversarial)


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "eps"), [("mnist_cnn_a_adv", 0.3), ("cifar_cnn_a_adv", 2 / 255)])
def test_breaks_what_the_published_code_broke(name, eps, stored):
    """Every fourth stored image, which the published code has attacked in the batch of all: at most one miss."""
    model, images, labels, results = stored(name)
    published = results["Linf"]
    rows = torch.arange(0, 200, 5)
    report = auto_attack(Linf(eps=eps)).run(model, images[rows], labels[rows], rows)
    assert torch.equal(report.clean, torch.tensor(published["clean_correct"]).bool()[rows])
    theirs = torch.tensor(published["robust_mask"]).bool()[rows]
    assert int((report.robust & ~theirs).sum()) <= 1
    assert int(report.robust.sum()) <= int(theirs.sum()) + 1
