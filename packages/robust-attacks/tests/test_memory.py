"""Working memory: the model's own forward and backward pass, the images that are handed back, and six buffers."""

import pytest
import torch
from robust_attacks import APGD, FAB, FGSM, L1, L2, MIFGSM, PGD, ImageRandom, Linf, Square, cross_entropy
from torch import nn
from torch.profiler import ProfilerActivity, profile

SHAPE = (64, 3, 16, 16)
IMAGES = 4 * 64 * 3 * 16 * 16  # bytes
THREATS = [Linf(eps=1e-3), L2(eps=0.01), L1(eps=0.05)]


class Steadfast(nn.Module):
    """A network whose activations dwarf its images, and that the attacks cannot mislead: no image leaves early."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))

    def forward(self, images):
        return self.layers(images) + torch.tensor([9.0, 0.0, 0.0, 0.0])


def peak(call):
    """The most bytes that were allocated at once beyond those before the call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


@pytest.fixture(scope="module")
def images():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
@pytest.mark.parametrize(
    "attack",
    [
        lambda threat: FGSM(threat=threat, random_start=True),
        lambda threat: PGD(threat=threat, steps=3),
        lambda threat: PGD(threat=threat, steps=3, restarts=2),
        lambda threat: MIFGSM(threat=threat, steps=3),
        lambda threat: APGD(threat=threat, steps=6),
        lambda threat: APGD(threat=threat, steps=6, targets=2),
        lambda threat: FAB(threat=threat, steps=3, targets=2),
        lambda threat: FAB(threat=threat, steps=2, restarts=2),
        lambda threat: Square(threat=threat, queries=10),
    ],
    ids=["fgsm-rs", "pgd", "pgd-2", "mifgsm", "apgd-ce", "apgd-t", "fab-t", "fab", "square"],
)
def test_six_buffers_are_enough(images, attack, threat):
    model, labels, made = Steadfast().eval(), torch.zeros(64, dtype=torch.int64), attack(threat)

    def own():
        """As many backward passes on one graph as the attack makes: FAB keeps it for all classes."""
        leaf = images.detach().requires_grad_()
        losses = cross_entropy(model(leaf), labels).sum()
        if isinstance(made, FAB) and made.targets is None:
            torch.autograd.grad(losses, leaf, retain_graph=True)
        return torch.autograd.grad(losses, leaf)

    extra = peak(lambda: made(model, images, labels, random=ImageRandom(0))) - peak(own)
    assert extra / IMAGES <= 1 + 6 + 0.2  # what is kept per image, and not per pixel
