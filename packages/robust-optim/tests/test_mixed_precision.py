import copy

import pytest
import torch
from robust_optim import AWP, ESAM, GSAM, SAM, LookSAM
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm


class Scaler(torch.amp.GradScaler):
    """Counts how often it unscales."""

    def __init__(self, **settings):
        super().__init__("cpu", **settings)
        self.unscaled = 0

    def unscale_(self, optimizer):
        self.unscaled += 1
        super().unscale_(optimizer)


def overflow(training, optimizer, phases):
    """Make all gradients of these phases infinite, as fp16 does when the loss scale is too large."""
    return [
        parameter.register_hook(lambda g: g * float("inf") if optimizer.phase in phases else None)
        for parameter in training.parameters()
    ]


def directions_of(optimizer, training):
    zero = torch.zeros(1, dtype=training.dtype)
    return [optimizer.directions.get(p, zero.expand_as(p)).clone() for p in training.parameters()]


def test_scaled_training_is_unscaled_training_also_while_the_scale_grows(training, method, base):
    plain, scaled = training(), training()
    scaler = Scaler(init_scale=2.0**10, growth_interval=2)
    a = method(base(plain.groups(weight_decay=0.01)), model=plain.model)
    b = method(base(scaled.groups(weight_decay=0.01)), model=scaled.model, scaler=scaler)
    for batch in plain.batches(9):
        loss = plain.step(a, *batch)
        torch.testing.assert_close(scaled.step(b, *batch), loss, rtol=1e-9, atol=0)
        for x, y in zip(plain.weights(), scaled.weights(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)
        for x, y in zip(directions_of(a, plain), directions_of(b, scaled), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)  # stored without the scale
    assert scaler.get_scale() == 2.0**14
    assert scaler.unscaled == b.updates == 9  # growth is no skip


@pytest.mark.parametrize("step", [1, 3])  # for LookSAM one of one pass and one of two
@pytest.mark.parametrize("phases", [("descent",), ("ascent", "descent")], ids="+".join)
def test_an_overflow_skips_the_update_as_if_it_had_not_been(training, same, method, step, phases):
    ours, theirs = training(), training()
    a, b = (
        method(
            torch.optim.SGD(t.groups(weight_decay=0.01), lr=0.1, momentum=0.9),
            model=t.model,
            scaler=Scaler(init_scale=2.0**16),
        )
        for t in (ours, theirs)
    )
    batches = ours.batches(7)
    ours.run(a, batches[:step])
    weights, state, mean = ours.weights(), copy.deepcopy(a.base.state_dict()["state"]), directions_of(a, ours)
    hooks = overflow(ours, a, phases)
    ours.step(a, *batches[step])
    for hook in hooks:
        hook.remove()
    assert a.scaler.get_scale() == 2.0**15
    assert a.scaler.unscaled == step + 1
    assert a.updates == step
    assert same(ours.weights(), weights)
    for old, new in zip(state.values(), a.base.state_dict()["state"].values(), strict=True):
        assert torch.equal(old["momentum_buffer"], new["momentum_buffer"])
    if getattr(a, "friendly", 0):
        assert same(directions_of(a, ours), mean)
    ours.run(a, batches[step:])
    theirs.run(b, batches)  # which never saw the overflow
    for x, y in zip(ours.weights(), theirs.weights(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


def test_an_overflow_in_the_first_pass_alone_skips_what_steps_with_its_gradient(training, same):
    ours = training()
    optimizer = GSAM(torch.optim.SGD(ours.parameters(), lr=0.1), rho=0.3, scaler=Scaler())
    before = ours.weights()
    overflow(ours, optimizer, ("ascent",))
    ours.step(optimizer, *ours.batches(1)[0])
    assert same(ours.weights(), before)
    assert optimizer.updates == 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda base, **given: SAM(base, rho=0.3, **given),
        lambda base, **given: SAM(base, rho=0.3, friendly=1.0, **given),
        lambda base, **given: LookSAM(base, rho=0.3, k=2, **given),
        lambda base, **given: AWP(base, gamma=0.3, **given),
    ],
    ids=["SAM", "F-SAM", "LookSAM", "AWP"],
)
def test_an_overflow_in_the_first_pass_alone_makes_a_plain_step_of_the_others(training, base, wrap):
    """It moves nothing and is remembered nowhere, and the second pass decides."""
    ours, theirs = training(), training()
    optimizer = wrap(base(ours.parameters()), model=ours.model, scaler=Scaler(init_scale=2.0**16))
    plain = base(theirs.parameters())
    overflow(ours, optimizer, ("ascent",))
    for batch in ours.batches(4):
        ours.step(optimizer, *batch)
        for parameter, g in zip(theirs.parameters(), theirs.gradients(theirs.weights(), *batch), strict=True):
            parameter.grad = g
        plain.step()
    for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)
    assert optimizer.scaler.get_scale() == 2.0**16
    assert optimizer.updates == 4
    assert not any(map(torch.any, directions_of(optimizer, ours)))


def test_clip_is_called_once_with_unscaled_gradients(training, method):
    plain, scaled = training(), training()
    norms = {plain: [], scaled: []}
    optimizers = []
    for t, scaler in ((plain, None), (scaled, Scaler())):

        def clip(parameters, t=t):
            norms[t].append(get_total_norm([p.grad for p in parameters]))
            nn.utils.clip_grad_norm_(parameters, 0.05)

        optimizer = method(torch.optim.SGD(t.parameters(), lr=0.1), model=t.model, scaler=scaler, clip=clip)
        t.run(optimizer, t.batches(5))
        optimizers.append(optimizer)
    torch.testing.assert_close(norms[scaled], norms[plain], rtol=1e-9, atol=0)
    assert len(norms[plain]) == 5
    assert optimizers[1].scaler.unscaled == 5
    for x, y in zip(plain.weights(), scaled.weights(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


def test_in_a_loop_of_ones_own_descend_drives_the_scaler(training, same, by_closure):
    ours, theirs = training(), training()
    a, b = (
        by_closure(torch.optim.SGD(t.parameters(), lr=0.1, momentum=0.9), model=t.model, scaler=Scaler())
        for t in (ours, theirs)
    )
    for batch in ours.batches(5):
        ours.step(a, *batch)
        backward = theirs.closure(b, *batch)  # scales the loss
        backward()
        if b.perturbs:
            b.ascend()
            backward()
        b.descend()
        assert same(ours.weights(), theirs.weights())
    assert b.scaler.unscaled == b.updates == 5


def test_a_scaler_that_is_switched_off_changes_nothing(training, same, method):
    plain, off = training(), training()
    a = method(torch.optim.SGD(plain.parameters(), lr=0.1), model=plain.model)
    b = method(torch.optim.SGD(off.parameters(), lr=0.1), model=off.model, scaler=Scaler(enabled=False))
    plain.run(a, plain.batches(5))
    off.run(b, off.batches(5))
    assert same(plain.weights(), off.weights())
    assert b.updates == 5


def test_closures_for_parts_of_the_batch_are_scaled_alike(training):
    plain, scaled = training(), training()
    a = SAM(torch.optim.SGD(plain.parameters(), lr=0.1), rho=0.3)
    b = SAM(torch.optim.SGD(scaled.parameters(), lr=0.1), rho=0.3, scaler=Scaler())
    for x, y in plain.batches(5):
        for t, optimizer in ((plain, a), (scaled, b)):
            parts = zip(x.split(2), y.split(2), strict=True)
            optimizer.step([t.closure(optimizer, *part) for part in parts])
    assert b.scaler.unscaled == 5
    for one, other in zip(plain.weights(), scaled.weights(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("clipped", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("fused", [torch.optim.SGD, torch.optim.AdamW], ids=lambda base: base.__name__)
def test_a_fused_base_optimizer_takes_the_scale_out_itself(training, same, method, fused, clipped):
    ours, theirs = (training(dtype=torch.float32) for _ in range(2))
    clip = (lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.1)) if clipped else None
    a, b = (
        method(
            fused(t.groups(weight_decay=0.01), lr=0.01, fused=f), model=t.model, scaler=Scaler(init_scale=s), clip=clip
        )
        for t, f, s in ((ours, True, 2.0**12), (theirs, False, 2.0**12))
    )
    (bad, *batches) = ours.batches(6)
    before = ours.weights()
    for hook in overflow(ours, a, ("ascent", "descent")):
        ours.step(a, *bad)
        hook.remove()
    assert same(ours.weights(), before)
    assert a.updates == 0
    for batch in batches:
        ours.step(a, *batch)
        theirs.step(b, *batch)
    for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_scale_and_direction_resume_together(training, same, method):
    whole, first, second = training(), training(), training()

    def build(t):
        scaler = Scaler(init_scale=2.0**10, growth_interval=3)
        return method(torch.optim.SGD(t.parameters(), lr=0.1, momentum=0.9), model=t.model, scaler=scaler)

    batches = whole.batches(10)
    whole.run(build(whole), batches)
    optimizer, resumed = build(first), build(second)
    first.run(optimizer, batches[:5])
    second.model.load_state_dict(first.model.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    resumed.scaler.load_state_dict(optimizer.scaler.state_dict())
    second.run(resumed, batches[5:])
    assert same(second.weights(), whole.weights())


# Autocast


def test_under_autocast_in_the_closure_the_gradient_is_that_at_the_moved_weights(training, base):
    ours, theirs = (training(dtype=torch.float32) for _ in range(2))
    optimizer, plain = SAM(base(ours.parameters()), rho=0.3), base(theirs.parameters())

    def gradients(weights, x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return theirs.gradients(weights, x, y)

    for x, y in ours.batches(10):

        def closure(x=x, y=y):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return ours.closure(optimizer, x, y)()

        optimizer.step(closure)
        w = theirs.weights()
        g = gradients(w, x, y)
        norm = get_total_norm(g)
        found = gradients([a + 0.3 * b / norm for a, b in zip(w, g, strict=True)], x, y)
        for parameter, gradient in zip(theirs.parameters(), found, strict=True):
            parameter.grad = gradient
        plain.step()
    for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-7)


def test_every_method_learns_under_autocast_in_bfloat16(training, method):
    ours = training(dtype=torch.float32)
    optimizer = method(torch.optim.SGD(ours.parameters(), lr=0.3, momentum=0.9), model=ours.model)
    ((x, y),) = ours.batches(1)

    def forward(subset=None):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            images, labels = (x, y) if subset is None else (x[subset], y[subset])
            return cross_entropy(ours.model(images), labels, reduction="none")

    def closure():
        optimizer.zero_grad()
        loss = forward().mean()
        loss.backward()
        return loss

    losses = [float(optimizer.step(forward if isinstance(optimizer, ESAM) else closure)) for _ in range(30)]
    assert losses[-1] < 0.2 * losses[0]


@pytest.fixture
def linear():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(4, 4)


INPUTS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


def backward_of(model, optimizer, seen=None):
    def closure():
        optimizer.zero_grad()
        loss = model(INPUTS).square().mean()
        loss.backward()
        if seen is not None:
            seen.append(model.weight.grad.clone())
        return loss

    return closure


@pytest.mark.parametrize("cleared", [True, False])
def test_inside_an_outer_autocast_the_second_pass_sees_the_moved_weights(linear, monkeypatch, cleared):
    if not cleared:  # the fault that this guards against
        monkeypatch.setattr(torch, "clear_autocast_cache", lambda: None)
    optimizer, seen = SAM(torch.optim.SGD(linear.parameters(), lr=0.1), rho=1.0), []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        optimizer.step(backward_of(linear, optimizer, seen))
    assert torch.equal(*seen) != cleared


def test_two_steps_in_one_outer_autocast_each_start_from_the_weights_of_the_last(linear):
    optimizer = SAM(torch.optim.SGD(linear.parameters(), lr=1.0), rho=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):
            optimizer.step(backward_of(linear, optimizer))
            seen = linear(INPUTS)
            torch.clear_autocast_cache()
            assert torch.equal(seen, linear(INPUTS))  # of the weights after the step, not of a cast made before it


def test_inside_an_outer_autocast_a_forward_pass_after_restore_sees_the_old_weights(linear):
    optimizer = SAM(torch.optim.SGD(linear.parameters(), lr=0.1), rho=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = linear(INPUTS)
        before.square().mean().backward()
        optimizer.ascend()
        assert not torch.equal(linear(INPUTS), before)
        optimizer.restore()
        assert torch.equal(linear(INPUTS), before)
