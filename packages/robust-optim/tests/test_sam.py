import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_optim import SAM, frozen_batch_norm
from torch import nn

A = torch.tensor([[3.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.7]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def quadratic(weights, optimizer):
    """A closure of L(w) = w'Aw / 2, whose gradient is Aw."""

    def closure():
        optimizer.zero_grad()
        loss = weights @ A @ weights / 2
        loss.backward()
        return loss

    return closure


def small_network(seed=0, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def batches(count, seed=1, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(6, 5, generator=random, dtype=dtype), torch.randint(3, (6,), generator=random))
        for _ in range(count)
    ]


def closure_of(model, optimizer, inputs, labels):
    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    return closure


def gradients_at(model, weights, inputs, labels):
    """The gradient of the loss at any weights, without touching the model: written independently of SAM."""
    weights = [w.clone().requires_grad_() for w in weights]
    names = [name for name, _ in model.named_parameters()]
    logits = torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (inputs,))
    return torch.autograd.grad(nn.functional.cross_entropy(logits, labels), weights)


def weights_of(model):
    return [p.detach().clone() for p in model.parameters()]


def assert_bit_equal(a, b):
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# The update


@pytest.mark.parametrize("rho", [0.0, 0.05, 2.0])
def test_twenty_steps_on_a_quadratic_follow_the_closed_form(rho):
    weights = nn.Parameter(START.clone())
    optimizer = SAM(torch.optim.SGD([weights], lr=0.05), rho=rho)
    w = START.clone()
    for _ in range(20):
        gradient = A @ w
        loss = optimizer.step(quadratic(weights, optimizer))
        torch.testing.assert_close(loss, w @ A @ w / 2, rtol=1e-8, atol=0)
        w = w - 0.05 * (A @ (w + rho * gradient / (gradient.norm() + 1e-12)))
        torch.testing.assert_close(weights.detach(), w, rtol=1e-8, atol=1e-12)


def test_twenty_steps_of_momentum_and_weight_decay_with_two_rhos_follow_the_formula():
    model = small_network()
    first, second = list(model[0].parameters()), list(model[2].parameters())
    base = torch.optim.SGD(
        [{"params": first, "rho": 0.2, "weight_decay": 0.01}, {"params": second, "weight_decay": 0.0}],
        lr=0.1,
        momentum=0.9,
    )
    optimizer = SAM(base, rho=0.05)
    w, velocity = weights_of(model), None
    rhos, decays = [0.2, 0.2, 0.05, 0.05], [0.01, 0.01, 0.0, 0.0]
    for inputs, labels in batches(20):
        g = gradients_at(model, w, inputs, labels)
        norm = sum(x.square().sum() for x in g).sqrt()  # over all groups together
        moved = [x + rho * y / (norm + 1e-12) for x, y, rho in zip(w, g, rhos, strict=True)]
        g = [
            x + d * y for x, y, d in zip(gradients_at(model, moved, inputs, labels), w, decays, strict=True)
        ]  # decay at w, not at w + e
        velocity = g if velocity is None else [0.9 * v + x for v, x in zip(velocity, g, strict=True)]
        w = [x - 0.1 * v for x, v in zip(w, velocity, strict=True)]
        optimizer.step(closure_of(model, optimizer, inputs, labels))
        for ours, expected in zip(model.parameters(), w, strict=True):
            torch.testing.assert_close(ours.detach(), expected, rtol=1e-10, atol=1e-12)


def test_twenty_steps_of_adamw_follow_the_formula():
    model = small_network()
    optimizer = SAM(torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1), rho=0.1)
    w = weights_of(model)
    m, v = [torch.zeros_like(x) for x in w], [torch.zeros_like(x) for x in w]
    for t, (inputs, labels) in enumerate(batches(20), start=1):
        g = gradients_at(model, w, inputs, labels)
        norm = sum(x.square().sum() for x in g).sqrt()
        g = gradients_at(model, [x + 0.1 * y / (norm + 1e-12) for x, y in zip(w, g, strict=True)], inputs, labels)
        for i in range(len(w)):
            m[i] = 0.9 * m[i] + 0.1 * g[i]
            v[i] = 0.99 * v[i] + 0.01 * g[i] ** 2
            w[i] = w[i] * (1 - 0.01 * 0.1) - 0.01 * (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.99**t)).sqrt() + 1e-8)
        optimizer.step(closure_of(model, optimizer, inputs, labels))
        for ours, expected in zip(model.parameters(), w, strict=True):
            torch.testing.assert_close(ours.detach(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
        lambda p: torch.optim.AdamW(p, lr=0.01),
    ],
    ids=["SGD", "AdamW"],
)
def test_rho_zero_is_the_base_optimizer_bit_for_bit(make):
    ours, plain = small_network(dtype=torch.float32), small_network(dtype=torch.float32)
    sam, base = SAM(make(ours.parameters()), rho=0.0), make(plain.parameters())
    for inputs, labels in batches(10, dtype=torch.float32):
        loss = sam.step(closure_of(ours, sam, inputs, labels))
        assert torch.equal(loss, base.step(closure_of(plain, base, inputs, labels)).detach())
        assert_bit_equal(ours.parameters(), plain.parameters())


@settings(max_examples=25, deadline=None)
@given(rho=st.floats(1e-3, 10), scale=st.floats(-20, 20), seed=st.integers(0, 99))
def test_the_ascent_has_length_rho_along_the_gradient_at_any_loss_scale(rho, scale, seed):
    random = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=random, dtype=torch.float64)) for shape in [(3, 4), (5,)]]
    optimizer = SAM(torch.optim.SGD(parameters, lr=0.1), rho=rho)
    before = [p.detach().clone() for p in parameters]
    gradients = [torch.randn(p.shape, generator=random, dtype=torch.float64) * 2**scale for p in parameters]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.clone()
    optimizer.ascend()
    e = torch.cat([(p.detach() - b).flatten() for p, b in zip(parameters, before, strict=True)])
    g = torch.cat([g.flatten() for g in gradients])
    torch.testing.assert_close(e, rho * g / g.norm(), rtol=1e-6, atol=1e-12)
    assert all(p.grad is None for p in parameters)  # taken, for the second pass to fill
    optimizer.restore()
    assert_bit_equal(parameters, before)


def test_the_two_phases_in_a_loop_of_ones_own_are_the_step():
    ours, theirs = small_network(), small_network()
    a = SAM(torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), rho=0.1)
    b = SAM(torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9), rho=0.1)
    for inputs, labels in batches(5):
        a.step(closure_of(ours, a, inputs, labels))
        b.zero_grad()
        nn.functional.cross_entropy(theirs(inputs), labels).backward()
        b.ascend()
        nn.functional.cross_entropy(theirs(inputs), labels).backward()
        b.descend()
        assert_bit_equal(ours.parameters(), theirs.parameters())


def test_low_precision_gradients_are_summed_in_float32():
    weights = nn.Parameter(torch.zeros(100_000, dtype=torch.bfloat16))
    optimizer = SAM(torch.optim.SGD([weights], lr=0.1), rho=100.0)
    weights.grad = torch.full_like(weights, 1.0)
    optimizer.ascend()
    torch.testing.assert_close(weights.detach().double().norm(), torch.tensor(100.0).double(), rtol=0.004, atol=0)


# Gradients that are zero, missing, not finite, sparse


def test_a_zero_gradient_moves_nothing():
    weights = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = SAM(torch.optim.SGD([weights], lr=0.1), rho=0.5)
    optimizer.step(quadratic(weights, optimizer))
    assert torch.equal(weights.detach(), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_gives_no_ascent(bad):
    weights = nn.Parameter(START.clone())
    optimizer = SAM(torch.optim.SGD([weights], lr=0.1), rho=0.5)
    weights.grad = torch.tensor([1.0, bad, 0.0], dtype=torch.float64)
    optimizer.ascend()
    assert torch.equal(weights.detach(), START)


def test_parameters_without_gradient_are_skipped():
    used, unused = nn.Parameter(START.clone()), nn.Parameter(torch.ones(2))
    optimizer = SAM(torch.optim.SGD([used, unused], lr=0.1, weight_decay=0.1), rho=0.5)
    optimizer.step(quadratic(used, optimizer))
    assert torch.equal(unused.detach(), torch.ones(2))
    assert not torch.equal(used.detach(), START)


def test_sparse_gradients_are_refused_and_nothing_moves():
    table = nn.Embedding(4, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer = SAM(torch.optim.SGD(table.parameters(), lr=0.1))

    def closure():
        optimizer.zero_grad()
        loss = table(torch.tensor([1, 2])).sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match=r"dense gradients.*\(4, 2\).*sparse=False"):
        optimizer.step(closure)
    assert torch.equal(table.weight.detach(), before)


# The weights come back


def test_weights_are_restored_bit_exactly_and_keep_their_storage():
    model = small_network(dtype=torch.float32)
    before, storage = weights_of(model), [p.data_ptr() for p in model.parameters()]
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.3)
    for inputs, labels in batches(5, dtype=torch.float32):
        optimizer.step(closure_of(model, optimizer, inputs, labels))
    assert_bit_equal(model.parameters(), before)
    assert [p.data_ptr() for p in model.parameters()] == storage


def test_a_closure_that_fails_in_the_second_pass_leaves_the_weights_and_the_next_step_works():
    weights = nn.Parameter(START.clone())
    optimizer = SAM(torch.optim.SGD([weights], lr=0.1), rho=0.5)
    calls = []

    def closure():
        calls.append(weights.detach().clone())
        if len(calls) == 2:
            raise MemoryError("in pass 2")
        return quadratic(weights, optimizer)()

    with pytest.raises(MemoryError, match="in pass 2"):
        optimizer.step(closure)
    assert not torch.equal(calls[1], START)  # it failed at perturbed weights
    assert torch.equal(weights.detach(), START)
    optimizer.step(closure)
    assert len(calls) == 4


def test_weights_that_change_their_dtype_between_steps_are_restored_exactly():
    model = small_network(dtype=torch.float32)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.3)
    optimizer.step(closure_of(model, optimizer, *batches(1, dtype=torch.float32)[0]))
    model.double()
    with torch.no_grad():
        model[0].weight.add_(1e-12)
    before = weights_of(model)
    optimizer.step(closure_of(model, optimizer, *batches(1)[0]))
    assert_bit_equal(model.parameters(), before)


# Batch norm and autocast


def test_with_a_model_the_statistics_are_those_of_plain_training():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    with torch.random.fork_rng(devices=[]):
        model, by_hand, naive = network(), network(), network()
    a, b, c = (SAM(torch.optim.SGD(m.parameters(), lr=0.1), rho=0.1) for m in (model, by_hand, naive))
    a.model = model
    for inputs, labels in batches(4, dtype=torch.float32):
        a.step(closure_of(model, a, inputs, labels))
        c.step(closure_of(naive, c, inputs, labels))
        closure_of(by_hand, b, inputs, labels)()
        b.ascend()
        with frozen_batch_norm(by_hand):
            closure_of(by_hand, b, inputs, labels)()
        b.descend()
    assert torch.equal(model[1].running_mean, by_hand[1].running_mean)
    assert model[1].num_batches_tracked == 4
    assert naive[1].num_batches_tracked == 8  # what happens without
    assert_bit_equal(model.parameters(), by_hand.parameters())


def gradients_of_both_passes(optimizer, model, inputs):
    """Run one step inside an outer autocast context, where casts of the weights are cached between the passes."""
    seen = []

    def closure():
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        seen.append(model.weight.grad.clone())
        return loss

    with torch.autocast("cpu", dtype=torch.bfloat16):
        optimizer.step(closure)
    return seen


def test_inside_an_outer_autocast_the_second_pass_sees_the_moved_weights(monkeypatch):
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))

    def run():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Linear(4, 4)
        return gradients_of_both_passes(SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=1.0), model, inputs)

    first, second = run()
    assert not torch.equal(first, second)
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: None)  # the fault that this guards against
    first, second = run()
    assert torch.equal(first, second)


def test_two_steps_in_one_outer_autocast_each_start_from_the_weights_of_the_last():
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(4, 4)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=1.0), rho=1.0)

    def closure():
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        return loss

    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):
            optimizer.step(closure)
            seen = model(inputs)
            torch.clear_autocast_cache()
            assert torch.equal(seen, model(inputs))  # of the weights after the step, not of a cast made before it


def test_inside_an_outer_autocast_a_forward_pass_after_restore_sees_the_old_weights():
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(4, 4)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(inputs)
        before.square().mean().backward()
        optimizer.ascend()
        assert not torch.equal(model(inputs), before)
        optimizer.restore()
        assert torch.equal(model(inputs), before)


def test_a_step_inside_no_grad_is_the_step_outside_of_it():
    weights, twin = nn.Parameter(START.clone()), nn.Parameter(START.clone())
    inside, outside = (SAM(torch.optim.SGD([w], lr=0.1), rho=0.5) for w in (weights, twin))
    with torch.no_grad():
        inside.step(quadratic(weights, inside))
        assert not torch.is_grad_enabled()
    outside.step(quadratic(twin, outside))
    assert torch.equal(weights, twin)


# Living with the base optimizer


def test_groups_and_state_are_those_of_the_base():
    weights, more = nn.Parameter(START.clone()), nn.Parameter(torch.ones(2))
    base = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=0.5)
    assert optimizer.param_groups is base.param_groups
    optimizer.step(quadratic(weights, optimizer))
    assert optimizer.state is base.state
    assert optimizer.state[weights]["momentum_buffer"] is not None
    optimizer.add_param_group({"params": [more], "rho": 0.7})
    assert optimizer.param_groups is base.param_groups
    assert [group["rho"] for group in base.param_groups] == [0.5, 0.7]
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is base.param_groups
    base.load_state_dict(base.state_dict())
    assert optimizer.param_groups is base.param_groups


@pytest.mark.parametrize("on", ["wrapper", "base"])
@pytest.mark.parametrize("phases", ["step", "ascend and descend"])
def test_schedulers_act_on_the_base_optimizer_without_warning(on, phases):
    weights = nn.Parameter(START.clone())
    base = torch.optim.SGD([weights], lr=0.08)
    optimizer = SAM(base, rho=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer if on == "wrapper" else base, step_size=1, gamma=0.5)
    w = START.clone()
    for lr in [0.08, 0.04, 0.02]:
        if phases == "step":
            optimizer.step(quadratic(weights, optimizer))
        else:
            quadratic(weights, optimizer)()
            optimizer.ascend()
            quadratic(weights, optimizer)()
            optimizer.descend()
        scheduler.step()
        gradient = A @ w
        w = w - lr * (A @ (w + 0.5 * gradient / gradient.norm()))
        torch.testing.assert_close(weights.detach(), w, rtol=1e-10, atol=1e-12)


def test_a_one_cycle_schedule_finds_the_momentum_of_the_base():
    weights = nn.Parameter(START.clone())
    optimizer = SAM(torch.optim.SGD([weights], lr=0.1, momentum=0.9))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=4, base_momentum=0.8)
    optimizer.step(quadratic(weights, optimizer))
    scheduler.step()
    assert 0.8 <= optimizer.base.param_groups[0]["momentum"] < 0.95


def test_rho_may_be_scheduled_in_the_groups():
    weights = nn.Parameter(START.clone())
    optimizer = SAM(torch.optim.SGD([weights], lr=0.1), rho=0.5)
    optimizer.param_groups[0]["rho"] = 0.25
    weights.grad = A @ START
    optimizer.ascend()
    torch.testing.assert_close((weights.detach() - START).norm().item(), 0.25)


def test_the_rho_of_the_last_wrapper_counts_except_where_the_caller_put_one():
    first, second, third = (nn.Parameter(torch.ones(2)) for _ in range(3))
    base = torch.optim.SGD([{"params": [first]}, {"params": [second], "rho": 0.2}], lr=0.1)
    SAM(base, rho=0.05).add_param_group({"params": [third]})
    assert [group["rho"] for group in base.param_groups] == [0.05, 0.2, 0.05]
    base.load_state_dict(base.state_dict())
    SAM(base, rho=0.5)
    assert [group["rho"] for group in base.param_groups] == [0.5, 0.2, 0.5]
    base.param_groups[0]["rho"] = 0.3
    SAM(base, rho=0.7)
    assert [group["rho"] for group in base.param_groups] == [0.3, 0.2, 0.7]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    ],
    ids=["SGD", "AdamW"],
)
def test_saving_loading_and_five_steps_are_ten_steps_bit_for_bit(make, tmp_path):
    def run(model, optimizer, data):
        for inputs, labels in data:
            optimizer.step(closure_of(model, optimizer, inputs, labels))

    data = batches(10, dtype=torch.float32)
    unbroken, first, second = (small_network(dtype=torch.float32) for _ in range(3))
    run(unbroken, SAM(make(unbroken.parameters()), rho=0.1), data)
    optimizer = SAM(make(first.parameters()), rho=0.1)
    run(first, optimizer, data[:5])
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second.load_state_dict(checkpoint["model"])
    resumed = SAM(make(second.parameters()), rho=0.9)  # the rho of the checkpoint counts
    resumed.load_state_dict(checkpoint["optimizer"])
    run(second, resumed, data[5:])
    assert_bit_equal(second.parameters(), unbroken.parameters())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_of_model_and_optimizer_goes_on_alike(clone):
    model = small_network()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.1)
    data = batches(4)
    optimizer.step(closure_of(model, optimizer, *data[0]))
    twin_model, twin = clone((model, optimizer))
    for inputs, labels in data[1:]:
        optimizer.step(closure_of(model, optimizer, inputs, labels))
        twin.step(closure_of(twin_model, twin, inputs, labels))
    assert_bit_equal(twin_model.parameters(), model.parameters())


# Mistakes


def built(**settings):
    weights = nn.Parameter(START.clone())
    return weights, SAM(torch.optim.SGD([weights], lr=0.1), **settings)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (torch.optim.SGD, "got the class SGD; wrap an optimizer that is built already"),
        (nn.Linear(2, 2), "got Linear; wrap an optimizer"),
        (list(nn.Linear(2, 2).parameters()), "got list; wrap an optimizer"),
        (built()[1], "wrapped in SAM already"),
        (torch.optim.LBFGS(nn.Linear(2, 2).parameters()), "LBFGS"),
        (torch.optim.Adadelta(nn.Linear(2, 2).parameters()), r"Adadelta has a setting of its own called rho.*SGD"),
    ],
    ids=["class", "module", "parameters", "twice", "LBFGS", "a rho of its own"],
)
def test_only_a_built_optimizer_can_be_wrapped(base, message):
    with pytest.raises(TypeError, match=message):
        SAM(base)


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_a_rho_out_of_range_is_refused_wherever_it_is_set(rho):
    with pytest.raises(ValueError, match="at least 0"):
        built(rho=rho)
    weights = nn.Parameter(START.clone())
    with pytest.raises(ValueError, match="at least 0"):
        SAM(torch.optim.SGD([{"params": [weights], "rho": rho}], lr=0.1))
    weights, optimizer = built()
    with pytest.raises(ValueError, match="at least 0"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "rho": rho})
    optimizer.param_groups[0]["rho"] = rho
    with pytest.raises(ValueError, match="at least 0"):
        optimizer.step(quadratic(weights, optimizer))
    assert torch.equal(weights.detach(), START)


@pytest.mark.parametrize("rho", ["0.05", None, [0.05]], ids=str)
def test_a_rho_that_is_no_number_is_refused(rho):
    with pytest.raises(TypeError, match=r"rho must be a number, such as 0\.05, got .* of type"):
        built(rho=rho)
    _, optimizer = built()
    with pytest.raises(TypeError, match=r"rho must be a number"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "rho": rho})


def test_a_model_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"torch.nn.Module"):
        built(model=lambda images: images)


def test_a_step_without_closure_is_told_both_ways():
    with pytest.raises(TypeError, match=r"step\(closure\).*ascend\(\)"):
        built()[1].step()


def test_a_closure_without_loss_is_told_so_and_nothing_moves():
    weights, optimizer = built()

    def closure():
        quadratic(weights, optimizer)()

    with pytest.raises(TypeError, match="must return the loss, a tensor or a number, got NoneType"):
        optimizer.step(closure)
    assert torch.equal(weights.detach(), START)


def test_a_closure_without_backward_is_told_so():
    _, optimizer = built()
    with pytest.raises(RuntimeError, match=r"no parameter has a gradient: run forward and backward\(\)"):
        optimizer.step(lambda: 1.0)


def test_a_closure_may_return_a_number():
    weights, optimizer = built()
    loss = optimizer.step(lambda: quadratic(weights, optimizer)().item())
    assert loss == pytest.approx(float(START @ A @ START / 2))


def test_phases_out_of_order_are_refused():
    weights, optimizer = built()
    with pytest.raises(RuntimeError, match="without ascend"):
        optimizer.descend()
    with pytest.raises(RuntimeError, match="without ascend"):
        optimizer.restore()
    quadratic(weights, optimizer)()
    optimizer.ascend()
    for call, message in [
        (optimizer.ascend, "called twice"),
        (optimizer.descend, r"between ascend\(\) and descend\(\)"),  # no second backward pass
        (optimizer.state_dict, "cannot be saved"),
        (lambda: optimizer.load_state_dict({}), "cannot be loaded"),
        (lambda: optimizer.step(quadratic(weights, optimizer)), "cannot be stepped"),
        (lambda: copy.deepcopy(optimizer), "cannot be copied"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            call()
    optimizer.restore()
    assert torch.equal(weights.detach(), START)


def test_states_of_something_else_are_refused_with_both_names():
    weights, optimizer = built()
    optimizer.step(quadratic(weights, optimizer))
    state = optimizer.state_dict()
    other = SAM(torch.optim.AdamW([weights], lr=0.1))
    with pytest.raises(ValueError, match=r"SAM\(SGD\).*into SAM\(AdamW\)"):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match=r"GSAM\(SGD\).*into SAM\(SGD\)"):
        optimizer.load_state_dict({**state, "wrapper": {**state["wrapper"], "method": "GSAM"}})
    with pytest.raises(ValueError, match=r"optimizer.base.load_state_dict"):
        optimizer.load_state_dict(optimizer.base.state_dict())
    optimizer.base.load_state_dict(torch.optim.SGD([weights], lr=0.3).state_dict())  # the way that the message shows
    assert optimizer.param_groups[0]["lr"] == 0.3
    optimizer.step(quadratic(weights, optimizer))  # a group without a rho takes the constructor's
