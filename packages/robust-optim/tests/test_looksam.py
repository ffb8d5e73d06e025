import pytest
import torch
from robust_optim import SAM, LookSAM
from torch import nn
from torch.nn.utils import get_total_norm


def dot(a, b):
    return sum((x * y).sum() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("k", "alpha"), [(5, 0.7), (2, 0.2), (3, 0.0)])
def test_twenty_steps_follow_the_formula_with_norms_over_all_tensors(follow, base, k, alpha):
    stored = []

    def formula(at, w, radii, step):
        g = at(w)
        norm = get_total_norm(g)
        if step % k:
            return [x + alpha * norm / get_total_norm(stored) * v for x, v in zip(g, stored, strict=True)]
        h = at([x + rho * y / (norm + 1e-12) for x, y, rho in zip(w, g, radii, strict=True)])
        stored[:] = [y - dot(g, h) / norm**2 * x for x, y in zip(g, h, strict=True)]
        return h

    follow(lambda base, model: LookSAM(base, rho=0.05, k=k, alpha=alpha), formula, base)


@pytest.mark.parametrize(("k", "calls"), [(1, 20), (5, 12), (10, 11)])
def test_only_every_kth_update_takes_two_passes(bowl, k, calls):
    valley, seen = bowl(), []
    optimizer = LookSAM(torch.optim.SGD([valley.weights], lr=0.1), k=k)

    def closure():
        seen.append((optimizer.updates, optimizer.phase))
        return valley.closure(optimizer)()

    for _ in range(10):
        optimizer.step(closure)
    assert len(seen) == calls
    assert [update for update, phase in seen if phase == "ascent"] == list(range(0, 10, k))
    assert [update for update, phase in seen if phase == "descent"] == list(range(10))


def test_k_1_is_sam(training, same, base):
    ours, theirs = training(), training()
    a, b = LookSAM(base(ours.groups(rho=0.3)), k=1), SAM(base(theirs.groups(rho=0.3)))
    for batch in ours.batches(10):
        ours.step(a, *batch)
        theirs.step(b, *batch)
        assert same(ours.weights(), theirs.weights())


def test_in_a_loop_of_ones_own_perturbs_tells_the_updates_of_two_passes(training, same):
    ours, theirs = training(), training()
    a, b = (LookSAM(torch.optim.SGD(t.parameters(), lr=0.1), rho=0.3, k=3) for t in (ours, theirs))
    passes = []
    for batch in ours.batches(7):
        ours.step(a, *batch)
        closure = theirs.closure(b, *batch)
        closure()
        passes.append(1 + b.perturbs)
        if b.perturbs:
            b.ascend()
            closure()
        b.descend()
        assert same(ours.weights(), theirs.weights())
    assert passes == [2, 1, 1, 2, 1, 1, 2]


def test_an_ascent_in_an_update_of_one_pass_is_refused(bowl):
    valley = bowl()
    optimizer = LookSAM(torch.optim.SGD([valley.weights], lr=0.1), k=2)
    optimizer.step(valley.closure(optimizer))
    before = valley.weights.detach().clone()
    valley.closure(optimizer)()
    with pytest.raises(RuntimeError, match=r"LookSAM takes one pass: call ascend\(\) only if optimizer.perturbs"):
        optimizer.ascend()
    assert torch.equal(valley.weights.detach(), before)
    optimizer.descend()
    assert optimizer.updates == 2


def test_where_both_gradients_point_the_same_way_there_is_nothing_to_reuse(bowl):
    """Along an axis of the quadratic g' is a multiple of g, so that g_v is 0, and the norm of it must not divide."""
    weights = nn.Parameter(torch.tensor([2.0, 0.0], dtype=torch.float64))
    optimizer = LookSAM(torch.optim.SGD([weights], lr=0.1), rho=0.5, k=2)

    def closure():
        optimizer.zero_grad()
        loss = weights.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(weights.detach(), torch.tensor([2.0 - 0.1 * 2.5, 0.0]).double())
    optimizer.step(closure)
    torch.testing.assert_close(weights.detach(), torch.tensor([1.75 - 0.1 * 1.75, 0.0]).double())


def test_a_parameter_that_joins_between_two_perturbed_updates_takes_its_own_gradient(bowl):
    used, late = bowl(), bowl()
    optimizer = LookSAM(torch.optim.SGD([used.weights, late.weights], lr=0.1), rho=0.5, k=3)
    optimizer.step(used.closure(optimizer))

    def closure():
        loss = used.closure(optimizer)()
        late.weights.grad = late.A @ late.weights.detach()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(late.weights.detach(), late.start - 0.1 * late.A @ late.start)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be a whole number of at least 1, got 0"),
        ({"k": 2.5}, ValueError, "k must be a whole number of at least 1, got 2.5"),
        ({"alpha": -1.0}, ValueError, "alpha must be a finite number"),
        ({"friendly": 1.0}, TypeError, "LookSAM and friendly both store a direction"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(bowl, given, error, message):
    with pytest.raises(error, match=message):
        LookSAM(torch.optim.SGD([bowl().weights], lr=0.2), **given)


def test_several_closures_are_refused(bowl):
    valley = bowl()
    optimizer = LookSAM(torch.optim.SGD([valley.weights], lr=0.1))
    with pytest.raises(TypeError, match="LookSAM with these settings takes one closure, got 2"):
        optimizer.step([valley.closure(optimizer)] * 2)


def test_a_radius_that_is_scheduled_to_zero_gives_the_base_optimizer(training, same):
    ours, theirs = training(), training()
    optimizer, base = (torch.optim.SGD(one.model.parameters(), lr=0.1) for one in (ours, theirs))
    optimizer = LookSAM(optimizer, rho=0.3, k=3)
    batches = ours.batches(6)
    for batch in batches[:2]:
        ours.step(optimizer, *batch)
    theirs.model.load_state_dict(ours.model.state_dict())
    optimizer.param_groups[0]["rho"] = 0.0
    for inputs, labels in batches[2:]:
        ours.step(optimizer, inputs, labels)
        base.zero_grad()
        torch.nn.functional.cross_entropy(theirs.model(inputs), labels).backward()
        base.step()
    assert same(ours.weights(), theirs.weights())
