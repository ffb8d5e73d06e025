"""The same updates from another implementation. It has its norms in float32, so both agree to a few roundings of it."""

import pytest
import torch
from robust_optim import GSAM, SAM, LookSAM

oracle = pytest.importorskip("pytorch_optimizer", reason="the package pytorch-optimizer is not installed")

BASES = {"SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), "AdamW": (torch.optim.AdamW, {"lr": 0.01})}


@pytest.fixture(params=BASES.values(), ids=BASES.keys())
def kind(request):
    return request.param


class BothWays:
    """Train twins with ours and with theirs, whose closure is for the second pass alone."""

    def __init__(self, training, ours, theirs):
        self.mine, self.other = training(dtype=torch.float32), training(dtype=torch.float32)
        self.ours, self.theirs = ours(self.mine.model), theirs(self.other.model)
        self.theirs.scaler = None

    def step(self, batch):
        self.mine.step(self.ours, *batch)
        closure = self.other.closure(self.theirs, *batch)
        closure()
        self.theirs.step(closure)

    def apart(self):
        return max((x - y).abs().max().item() for x, y in zip(self.mine.weights(), self.other.weights(), strict=True))

    def check(self):
        start = self.mine.weights()
        for batch in self.mine.batches(5):
            self.step(batch)
            assert self.apart() <= 2e-7
        assert max((x - y).abs().max() for x, y in zip(self.mine.weights(), start, strict=True)) > 0.01


def test_sam(training, kind):
    base, settings = kind
    BothWays(
        training,
        lambda model: SAM(base(model.parameters(), **settings), rho=0.3),
        lambda model: oracle.SAM(model.parameters(), base, rho=0.3, **settings),
    ).check()


def test_asam_of_all_tensors_without_eta(training, kind):
    base, settings = kind
    BothWays(
        training,
        lambda model: SAM(
            base(model.parameters(), **settings), rho=0.3, adaptive=lambda *_: True, eta=0.0, model=model
        ),
        lambda model: oracle.SAM(model.parameters(), base, rho=0.3, adaptive=True, **settings),
    ).check()


class Constant:
    """What their GSAM asks for the radius."""

    def step(self):
        return 0.3


def test_gsam(training, kind):
    base, settings = kind
    both = BothWays(
        training,
        lambda model: GSAM(base(model.parameters(), **settings), rho=0.3, alpha=0.4),
        lambda model: oracle.GSAM(
            model.parameters(), base(model.parameters(), **settings), model, rho_scheduler=Constant(), alpha=0.4
        ),
    )
    for batch in both.mine.batches(5):
        both.mine.step(both.ours, *batch)
        both.theirs.set_closure(torch.nn.functional.cross_entropy, *batch)
        both.theirs.step()
        assert both.apart() <= 5e-7


@pytest.mark.parametrize("alike", [True, False], ids=["their mean", "the paper's mean"])
def test_friendly_sam_has_another_mean_to_start_with_and_is_the_same_from_theirs(training, kind, alike):
    """With sigma = 1, g less the mean before it and g less the mean with it point the same way."""
    base, settings = kind
    both = BothWays(
        training,
        lambda model: SAM(base(model.parameters(), **settings), rho=0.3, friendly=1.0),
        lambda model: oracle.FriendlySAM(model.parameters(), base, rho=0.3, sigma=1.0, lmbda=0.9, **settings),
    )
    first, *others = both.mine.batches(5)
    gradients = both.mine.gradients(both.mine.weights(), *first)
    both.step(first)
    assert both.apart() <= 2e-7  # along the gradient itself, whichever multiple of it is taken out
    for mean, gradient in zip(both.ours.directions.values(), gradients, strict=True):
        torch.testing.assert_close(mean, 0.1 * gradient)  # the paper's starts at 0, theirs at the first gradient
        mean.mul_(10.0 if alike else 1.0)
    for batch in others:
        both.step(batch)
    assert both.apart() <= 1e-6 if alike else both.apart() > 1e-3


def test_looksam_of_a_single_tensor_in_fewer_passes(kind):
    """Their norms are per tensor, ours over all: the same where there is one. They run all closures, we 7 of 10."""
    base, settings = kind
    settings = {**settings, "lr": 0.01}
    A = torch.tensor([[3.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.7]], dtype=torch.float64)
    mine, other = (torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)) for _ in range(2))
    ours = LookSAM(base([mine], **settings), rho=0.3, k=3, alpha=0.7)
    theirs = oracle.LookSAM([other], base, rho=0.3, k=3, alpha=0.7, **settings)
    calls = []

    def closure_of(optimizer, weights):
        def closure():
            optimizer.zero_grad()
            loss = weights @ A @ weights / 2
            loss.backward()
            calls.append(optimizer)
            return loss

        return closure

    for _ in range(5):
        ours.step(closure_of(ours, mine))
        closure_of(theirs, other)()
        theirs.step(closure_of(theirs, other))
        torch.testing.assert_close(mine, other, rtol=0, atol=3e-7)
    assert [calls.count(optimizer) for optimizer in (ours, theirs)] == [7, 10]
