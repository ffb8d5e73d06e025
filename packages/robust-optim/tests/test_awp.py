import pytest
import torch
from robust_optim import AWP
from torch import nn


class Named(nn.Module):
    """Parameters of several names and numbers of axes, each with a gradient of ones times its index."""

    def __init__(self):
        super().__init__()
        self.conv_weight = nn.Parameter(torch.full((2, 3, 1, 1), 2.0))
        self.weight = nn.Parameter(torch.full((4,), 2.0))  # one axis, as in a norm
        self.kernel = nn.Parameter(torch.full((2, 2), 2.0))  # another name
        self.bias = nn.Parameter(torch.full((2, 2), 2.0))
        self.head = nn.Linear(3, 2)

    def fill_gradients(self):
        for i, parameter in enumerate(self.parameters(), start=1):
            parameter.grad = i * torch.ones_like(parameter)


def awp(gammas, perturbed):
    def formula(at, w, radii, step):
        g = at(w)
        moved = list(w)
        for i in perturbed:
            moved[i] = w[i] + gammas[i] * w[i].norm() * g[i] / (g[i].norm() + 1e-20)
        return at(moved)

    return formula


def test_twenty_steps_follow_the_formula_with_norms_of_each_tensor(follow, base):
    formula = awp([0.2, 0.2, 0.05, 0.05], perturbed=[0, 2])  # weights, but no biases
    follow(lambda base, model: AWP(base, model=model, gamma=0.05), formula, base)


def test_a_choice_of_ones_own_takes_the_place_of_the_rule(follow, base):
    formula = awp([0.2, 0.2, 0.05, 0.05], perturbed=[1, 2])
    choice = {"0.bias": True, "0.weight": False, "2.weight": True, "2.bias": False}
    follow(
        lambda base, model: AWP(base, model=model, gamma=0.05, perturb=lambda name, parameter: choice[name]),
        formula,
        base,
    )


def test_the_rule_takes_tensors_of_several_axes_called_weight():
    model = Named()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = AWP(torch.optim.SGD(model.parameters(), lr=0.1), model=model, gamma=0.1)
    model.fill_gradients()
    optimizer.ascend()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"conv_weight", "head.weight"}
    for name in moved:
        v = model.get_parameter(name).detach() - before[name]
        torch.testing.assert_close(v.norm(), 0.1 * before[name].norm())


def test_a_tensor_of_zeros_or_with_a_gradient_of_zeros_stays():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.zero_()
    optimizer = AWP(torch.optim.SGD(model.parameters(), lr=0.1), model=model, gamma=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model[1].weight.grad.zero_()
    optimizer.ascend()
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert moved == [False, False, False, False, True, False]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_moves_no_tensor_at_all(bad):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    optimizer = AWP(torch.optim.SGD(model.parameters(), lr=0.1), model=model, gamma=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model[1].weight.grad[0, 0] = bad
    optimizer.ascend()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_the_perturbation_starts_after_so_many_updates(training, same):
    ours, theirs = training(), training()
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    optimizer = AWP(torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), model=ours.model, gamma=0.3, start=3)
    passes = []
    ours.model.register_forward_pre_hook(lambda module, inputs: passes.append(optimizer.updates))
    for step, batch in enumerate(ours.batches(5)):
        ours.step(optimizer, *batch)
        if step < 3:
            for parameter, g in zip(theirs.parameters(), theirs.gradients(theirs.weights(), *batch), strict=True):
                parameter.grad = g
            plain.step()
        for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
            close = torch.allclose(mine, expected, rtol=1e-12, atol=1e-14)
            assert close == (step < 3)
    assert passes == [0, 1, 2, 3, 3, 4, 4]


# The two orders


def published(at, w, v, velocity, decay):
    """The released code: the step is made at w + v, with momentum and coupled decay there; then v is subtracted."""
    moved = [x + y for x, y in zip(w, v, strict=True)]
    g = [x + decay * y for x, y in zip(at(moved), moved, strict=True)]
    velocity = g if velocity is None else [0.9 * x + y for x, y in zip(velocity, g, strict=True)]
    stepped = [x - 0.1 * y for x, y in zip(moved, velocity, strict=True)]
    return [x - y for x, y in zip(stepped, v, strict=True)], velocity


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_the_order_step_first_is_the_published_procedure(training, decay):
    ours = training()
    base = torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
    optimizer = AWP(base, model=ours.model, gamma=0.3, order="step_first")
    w, velocity = ours.weights(), None
    for batch in ours.batches(20):

        def at(weights, batch=batch):
            return ours.gradients(weights, *batch)

        g = at(w)
        v = [0.3 * x.norm() * y / y.norm() if x.ndim > 1 else 0 * x for x, y in zip(w, g, strict=True)]
        w, velocity = published(at, w, v, velocity, decay)
        ours.step(optimizer, *batch)
        for mine, expected in zip(ours.weights(), w, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("decay", "equal"), [(0.0, True), (0.05, False)])
def test_the_orders_differ_exactly_where_decay_is_coupled(training, decay, equal):
    ours, theirs = training(), training()
    for t, order in ((ours, "restore_first"), (theirs, "step_first")):
        base = torch.optim.SGD(t.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
        t.run(AWP(base, model=t.model, gamma=0.3, order=order), t.batches(10))
    apart = max((x - y).abs().max().item() for x, y in zip(ours.weights(), theirs.weights(), strict=True))
    assert apart < 1e-13 if equal else apart > 1e-4


def test_a_clip_that_raises_at_the_moved_weights_leaves_the_old_ones(training, same):
    ours = training(dtype=torch.float32)

    def clip(parameters):
        raise FloatingPointError("in clip")

    base = torch.optim.SGD(ours.parameters(), lr=0.1)
    optimizer = AWP(base, model=ours.model, gamma=0.3, order="step_first", clip=clip)
    before = ours.weights()
    with pytest.raises(FloatingPointError, match="in clip"):
        ours.step(optimizer, *ours.batches(1)[0])
    assert same(ours.weights(), before)
    assert optimizer.updates == 0


def test_what_a_failed_update_would_have_subtracted_is_forgotten(training, same):
    ours, theirs = (training(dtype=torch.float32) for _ in range(2))
    base, plain = (torch.optim.SGD(t.parameters(), lr=0.1, weight_decay=0.1) for t in (ours, theirs))
    optimizer = AWP(base, model=ours.model, gamma=0.3, order="step_first")
    x, y = ours.batches(1)[0]

    def fail_in_the_second_pass():
        if optimizer.phase == "descent":
            raise MemoryError
        return ours.closure(optimizer, x, y)()

    with pytest.raises(MemoryError):
        optimizer.step(fail_in_the_second_pass)
    optimizer.param_groups[0]["gamma"] = 0.0  # the next update takes one pass
    ours.step(optimizer, x, y)
    theirs.model.zero_grad()
    nn.functional.cross_entropy(theirs.model(x), y, reduction="none").mean().backward()
    plain.step()
    assert same(ours.weights(), theirs.weights())


def test_closures_of_parts_are_refused_where_the_step_comes_first(training):
    ours = training()
    optimizer = AWP(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model, order="step_first")
    with pytest.raises(TypeError, match="AWP with these settings takes one closure, got 2"):
        optimizer.step([ours.closure(optimizer, *batch) for batch in ours.batches(2)])


# Another loss to find the perturbation


def test_the_phase_lets_a_closure_find_the_perturbation_with_another_loss(training):
    """As in TRADES-AWP, where both are the same, and in variants that perturb along one term of the loss alone."""
    ours = training()
    optimizer = AWP(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model, gamma=0.3)
    (x, y), (other_x, other_y) = ours.batches(2)

    def closure():
        inputs, labels = (other_x, other_y) if optimizer.phase == "ascent" else (x, y)
        return ours.closure(optimizer, inputs, labels)()

    w = ours.weights()
    g = ours.gradients(w, other_x, other_y)
    moved = [a + 0.3 * a.norm() * b / b.norm() if a.ndim > 1 else a for a, b in zip(w, g, strict=True)]
    h = ours.gradients(moved, x, y)
    optimizer.step(closure)
    for mine, a, b in zip(ours.weights(), w, h, strict=True):
        torch.testing.assert_close(mine, a - 0.1 * b, rtol=1e-9, atol=1e-11)


# Mistakes


def test_it_needs_the_model():
    with pytest.raises(TypeError, match=r"AWP needs the torch.nn.Module whose weights it perturbs as model="):
        AWP(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1), model=None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gamma": -0.1}, "gamma must be a finite number of at least 0"),
        ({"start": -1}, "start must be a whole number of at least 0, got -1"),
        ({"start": 1.5}, "start must be a whole number of at least 0, got 1.5"),
        ({"order": "first"}, 'order must be "restore_first" or "step_first", got \'first\''),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(given, message):
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=message):
        AWP(torch.optim.SGD(model.parameters(), lr=0.1), model=model, **given)
