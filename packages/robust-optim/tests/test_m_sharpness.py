import pytest
import torch
from robust_optim import AWP, GSAM, SAM
from torch.nn.utils import get_total_norm

METHODS = {
    "SAM": lambda base, model, **more: SAM(base, rho=0.3, **more),
    "ASAM": lambda base, model, **more: SAM(base, rho=0.3, adaptive=True, model=model, **more),
    "GSAM": lambda base, model, **more: GSAM(base, rho=0.3, alpha=0.4, **more),
    "AWP": lambda base, model, **more: AWP(base, model=model, gamma=0.3, **more),
}


def gradient_of(name, at, w):
    """What the method takes out of one part of the batch."""
    g = at(w)
    if name == "AWP":
        moves = [0.3 * x.norm() * y / y.norm() if x.ndim > 1 else 0 * x for x, y in zip(w, g, strict=True)]
    else:
        T = [x.abs() + 0.01 if name == "ASAM" and x.ndim > 1 else 1.0 for x in w]
        norm = get_total_norm([t * y for t, y in zip(T, g, strict=True)])
        moves = [0.3 * t * t * y / norm for t, y in zip(T, g, strict=True)]
    h = at([x + e for x, e in zip(w, moves, strict=True)])
    if name == "GSAM":
        along = sum((x * y).sum() for x, y in zip(g, h, strict=True)) / get_total_norm(h) ** 2
        h = [y - 0.4 * (x - along * y) for x, y in zip(g, h, strict=True)]
    return h


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def test_twenty_steps_follow_the_mean_over_parts_that_are_perturbed_on_their_own(training, name, base):
    ours, theirs = training(), training()
    optimizer = METHODS[name](base(ours.parameters()), ours.model)
    plain = base(theirs.parameters())
    for x, y in ours.batches(20):
        parts = list(zip(x.split(2), y.split(2), strict=True))
        w, losses = theirs.weights(), []
        found = []
        for part in parts:
            losses.append(torch.nn.functional.cross_entropy(theirs.model(part[0]), part[1]).detach())
            found.append(gradient_of(name, lambda w, part=part: theirs.gradients(w, *part), w))
        for i, parameter in enumerate(theirs.parameters()):
            parameter.grad = sum(g[i] for g in found) / 3
        plain.step()
        loss = optimizer.step([ours.closure(optimizer, *part) for part in parts])
        torch.testing.assert_close(loss, sum(losses) / 3)
        for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)
    assert optimizer.updates == 20


def test_one_part_is_the_whole(training, name, same):
    ours, theirs = training(), training()
    a, b = (METHODS[name](torch.optim.SGD(t.parameters(), lr=0.1), t.model) for t in (ours, theirs))
    for batch in ours.batches(3):
        a.step([ours.closure(a, *batch)])
        b.step(theirs.closure(b, *batch))
    assert same(ours.weights(), theirs.weights())


def test_every_part_is_seen_twice_before_the_next_and_always_at_the_old_weights_first(training, same):
    ours = training(dropout=0.5, batch_norm=True)
    optimizer = SAM(torch.optim.SGD(ours.parameters(), lr=0.1), rho=0.3, model=ours.model)
    before, seen, masks = ours.weights(), [], []
    ours.model.register_forward_pre_hook(lambda _, x: seen.append((x[0][0, 0].item(), same(ours.weights(), before))))
    ours.model[2].register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    ((x, y),) = ours.batches(1)
    parts = list(zip(x.split(2), y.split(2), strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        optimizer.step([ours.closure(optimizer, *part) for part in parts])
    assert seen == [(part[0][0, 0].item(), first) for part in parts for first in (True, False)]
    assert same(masks[::2], masks[1::2])
    assert not torch.equal(masks[0], masks[2])  # the parts have random numbers of their own
    assert ours.model[1].num_batches_tracked == 3


def test_with_radius_zero_the_parts_are_the_batch_in_one_pass_each(training, base):
    ours, theirs = training(), training()
    optimizer, plain = SAM(base(ours.parameters()), rho=0.0), base(theirs.parameters())
    calls = []
    for x, y in ours.batches(3):
        closures = [ours.closure(optimizer, *part) for part in zip(x.split(3), y.split(3), strict=True)]
        optimizer.step([lambda one=one: calls.append(one) or one() for one in closures])
        for parameter, g in zip(theirs.parameters(), theirs.gradients(theirs.weights(), x, y), strict=True):
            parameter.grad = g
        plain.step()
        for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)
    assert len(calls) == 6


def test_a_parameter_that_only_some_parts_use_gets_its_share(bowl):
    both, second = bowl(), bowl()
    optimizer = SAM(torch.optim.SGD([both.weights, second.weights], lr=0.1), rho=0.0)

    def uses_both():
        loss = both.closure(optimizer)()
        second.weights.grad = second.A @ second.weights.detach()
        return loss

    optimizer.step([both.closure(optimizer), uses_both])
    torch.testing.assert_close(both.weights.detach(), both.start - 0.1 * both.A @ both.start)
    torch.testing.assert_close(second.weights.detach(), second.start - 0.05 * second.A @ second.start)


def test_clip_sees_the_mean_once(training):
    ours, norms = training(), []
    optimizer = SAM(
        torch.optim.SGD(ours.parameters(), lr=0.1),
        rho=0.3,
        clip=lambda parameters: norms.append(get_total_norm([p.grad for p in parameters])),
    )
    ((x, y),) = ours.batches(1)
    parts, w = list(zip(x.split(2), y.split(2), strict=True)), ours.weights()
    found = [gradient_of("SAM", lambda w, part=part: ours.gradients(w, *part), w) for part in parts]
    optimizer.step([ours.closure(optimizer, *part) for part in parts])
    torch.testing.assert_close(norms, [get_total_norm([sum(g) / 3 for g in zip(*found, strict=True)])])


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_failure_in_any_pass_leaves_the_weights_and_the_next_update_works(training, same, name, failing):
    ours = training(dtype=torch.float32)
    optimizer = METHODS[name](torch.optim.SGD(ours.parameters(), lr=0.1), ours.model)
    before, passes = ours.weights(), []

    def fail(*_):
        passes.append(None)
        if len(passes) == failing:
            raise MemoryError

    ours.model.register_forward_pre_hook(fail)
    closures = [ours.closure(optimizer, *batch) for batch in ours.batches(2)]
    with pytest.raises(MemoryError):
        optimizer.step(closures)
    assert same(ours.weights(), before)
    assert optimizer.updates == 0
    optimizer.step(closures)
    assert len(passes) == failing + 4
