"""Searches that see the model through something faster: few sizes, verdicts of the model itself."""

import functools
import warnings

import pytest
import torch
from robust_attacks import APGD, FAB, PGD, Linf, Square, WorstCase
from robust_attacks._accelerated import FewSizes
from torch import nn

THREAT = Linf(eps=0.12)


@pytest.fixture
def case(rows):
    images = 0.3 + 0.4 * torch.rand(13, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = rows((1, 6, 6)).eval()
    return model, images, model(images).argmax(dim=1)


SUITE = WorstCase(
    [
        APGD(threat=THREAT, steps=8),
        FAB(threat=THREAT, steps=5, targets=2),
        Square(threat=THREAT, queries=15),
        PGD(threat=THREAT, steps=3),
    ]
)


def test_the_faster_model_sees_few_sizes(case):
    model, images, labels = case
    sizes = []

    def accelerate(model):
        def faster(some):
            sizes.append(len(some))
            return model(some)

        return faster

    expected = SUITE.run(model, images, labels, batch_size=8)
    report = SUITE.run(model, images, labels, batch_size=8, accelerate=accelerate)
    assert set(sizes) <= {8, 4, 2, 1}
    assert torch.equal(report.adversarial, expected.adversarial)
    assert report.broken_by == expected.broken_by
    assert report.forwards == expected.forwards
    assert report.backwards == expected.backwards
    assert 0 < int(report.robust.sum()) < 13
    assert any("the searches saw the model through <function" in note for note in report.notes)
    assert "0x" not in "".join(report.notes)


def test_a_faster_model_that_lies_breaks_nothing(case):
    model, images, labels = case
    report = SUITE.run(model, images, labels, accelerate=lambda model: lambda some: -model(some))
    assert torch.equal(model(report.adversarial).argmax(dim=1) == labels, report.robust)
    assert all(part.flips > 0 for part in report.parts[:3])


def test_fab_goes_on_from_a_point_that_the_model_itself_refuses():
    """One pixel at 0.5; steps of twice the way to a boundary at 0.6 lead to 0.7, too far, and back to 0.68."""

    def boundary(place, seen):
        def model(images):
            pixel = images[:, 0, 0, 0]
            seen.extend(pixel.tolist())
            return torch.stack((0 * pixel, pixel - place), dim=1)

        return model

    attack = FAB(threat=Linf(eps=0.19), steps=4, eta=2.0, alpha_max=0.0, targets=1)
    images, labels = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    for place, robust in ((0.67, False), (0.69, True)):
        claimed, shown = [], []
        faster = boundary(0.6, claimed)
        report = WorstCase([attack]).run(
            boundary(place, shown), images, labels, accelerate=lambda model, faster=faster: faster
        )
        assert bool(report.robust) is robust
        assert report.parts[0].flips > 0 if robust else float(report.adversarial) == pytest.approx(0.68, abs=1e-6)
        assert any(abs(pixel - 0.68) < 1e-6 for pixel in shown)
        assert any(abs(pixel - 0.662) < 1e-6 for pixel in claimed) is robust  # 0.5 + 0.9 * 0.18


def test_logits_are_not_written_over():
    """As a CUDA graph does: every call hands out the same memory."""
    memory = torch.zeros(4, 2)

    def captured(images):
        memory.copy_(torch.stack((images.sum(dim=(1, 2, 3)), images[:, 0, 0, 0]), dim=1))
        return memory

    model = FewSizes(captured, 4)
    first = model(torch.ones(3, 1, 1, 2))
    model(torch.zeros(4, 1, 1, 2))
    assert first.tolist() == [[2.0, 1.0]] * 3


@pytest.mark.slow
def test_takes_torch_compile():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    images = 0.3 + 0.4 * torch.rand(9, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(dim=1)
    suite = WorstCase([APGD(threat=THREAT, steps=8), Square(threat=THREAT, queries=15)])
    expected = suite.run(model, images, labels, batch_size=4)
    compiler = functools.partial(torch.compile, backend="eager", dynamic=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own compiler
        report = suite.run(model, images, labels, batch_size=4, accelerate=compiler)
    assert report.broken_by == expected.broken_by
    torch.testing.assert_close(report.adversarial, expected.adversarial, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_takes_cuda_graphs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval().cuda()
    images = 0.3 + 0.4 * torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0)).cuda()
    labels = model(images).argmax(dim=1)
    suite = WorstCase([APGD(threat=THREAT, steps=20), FAB(threat=THREAT, steps=5, restarts=2), Square(threat=THREAT)])
    expected = suite.run(model, images, labels, batch_size=16)
    graphs = functools.partial(torch.compile, mode="reduce-overhead", dynamic=False)
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning):  # of torch's own compiler
            warnings.simplefilter("ignore", category)
        report = suite.run(model, images, labels, batch_size=16, accelerate=graphs)
    assert int((report.robust != expected.robust).sum()) <= 2
