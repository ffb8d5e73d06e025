import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_optim import GSAM, SAM
from torch import nn
from torch.nn.utils import get_total_norm


def dot(a, b):
    return sum((x * y).sum() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("alpha", [0.01, 0.4, 1.5])
def test_twenty_steps_follow_the_formula(follow, base, alpha):
    def formula(at, w, radii, step):
        g = at(w)
        norm = get_total_norm(g)
        h = at([x + rho * y / (norm + 1e-12) for x, y, rho in zip(w, g, radii, strict=True)])
        along = dot(g, h) / get_total_norm(h) ** 2
        orthogonal = [x - along * y for x, y in zip(g, h, strict=True)]
        return [y - alpha * x for x, y in zip(orthogonal, h, strict=True)]

    follow(lambda base, model: GSAM(base, rho=0.05, alpha=alpha), formula, base)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(alpha=st.floats(0.01, 2), scale=st.floats(-20, 20), seed=st.integers(0, 99))
def test_what_is_taken_out_is_orthogonal_to_the_perturbed_gradient_over_all_tensors_together(alpha, scale, seed):
    random = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=random, dtype=torch.float64)) for shape in [(3, 4), (5,)]]
    optimizer = GSAM(torch.optim.SGD(parameters, lr=0.1), rho=0.1, alpha=alpha)
    first, second = (
        [torch.randn(p.shape, generator=random, dtype=torch.float64) * 2**scale for p in parameters] for _ in range(2)
    )
    for p, g in zip(parameters, first, strict=True):
        p.grad = g.clone()
    optimizer.ascend()
    for p, g in zip(parameters, second, strict=True):
        p.grad = g.clone()
    optimizer.descend()
    taken = [(h - p.grad) / alpha for h, p in zip(second, parameters, strict=True)]
    assert abs(dot(taken, second)) < 1e-9 * get_total_norm(first) * get_total_norm(second)
    along = dot(first, second) / dot(second, second)
    for t, g, h in zip(taken, first, second, strict=True):
        torch.testing.assert_close(t, g - along * h, rtol=1e-6, atol=1e-9 * 2**scale)


def test_alpha_zero_is_sam(training, same, base):
    ours, theirs = training(), training()
    a, b = GSAM(base(ours.groups(rho=0.3)), alpha=0.0), SAM(base(theirs.groups(rho=0.3)))
    for batch in ours.batches(10):
        ours.step(a, *batch)
        theirs.step(b, *batch)
        assert same(ours.weights(), theirs.weights())


def test_a_perturbed_gradient_of_zero_leaves_the_first_one_as_orthogonal_part():
    weights = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = GSAM(torch.optim.SGD([weights], lr=1.0), rho=0.5, alpha=0.5)
    weights.grad = torch.tensor([1.0, 2.0])
    optimizer.ascend()
    weights.grad = torch.zeros(2)
    optimizer.descend()
    torch.testing.assert_close(weights.detach(), torch.tensor([3.5, 5.0]))


def test_gradients_of_the_first_pass_are_kept_also_where_the_second_writes_over_their_memory():
    """As DistributedDataParallel does with gradient_as_bucket_view."""
    memory = torch.zeros(4, dtype=torch.float64)
    parameters = [nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2)]
    optimizer = GSAM(torch.optim.SGD(parameters, lr=0.0), rho=0.1, alpha=1.0)
    for values in ([1.0, 2.0, 3.0, 4.0], [4.0, -3.0, 2.0, 1.0]):
        memory.copy_(torch.tensor(values))
        for parameter, part in zip(parameters, memory.split(2), strict=True):
            parameter.grad = part
        if values[0] == 1.0:
            optimizer.ascend()
    optimizer.descend()
    g, h = torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), torch.tensor([4.0, -3.0, 2.0, 1.0]).double()
    torch.testing.assert_close(torch.cat([p.grad for p in parameters]), h - (g - (g @ h) / (h @ h) * h))


# The radius may follow the learning rate


def length_of_ascent(optimizer, parameters):
    """How far each parameter is moved, in units of its share of the gradient."""
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.ascend()
    moves = [(p.detach() - b).norm().item() for p, b in zip(parameters, before, strict=True)]
    optimizer.restore()
    return [move * len(parameters) ** 0.5 for move in moves]


def test_the_radius_is_linear_in_the_learning_rate_of_each_group_and_stays_at_the_nearer_end_outside():
    parameters = [nn.Parameter(torch.zeros(4, dtype=torch.float64)) for _ in range(2)]
    base = torch.optim.SGD([{"params": [parameters[0]], "lr": 0.1}, {"params": [parameters[1]], "rho": 0.6}], lr=1.0)
    optimizer = GSAM(base, rho=0.5, rho_min=0.1, lr_min=0.02)
    first, second = base.param_groups
    for rates, radii in [
        ((0.1, 1.0), (0.5, 0.6)),  # both at their full rates
        ((0.02, 0.02), (0.1, 0.1)),
        ((0.06, 0.51), (0.3, 0.35)),  # half-way
        ((0.04, 0.755), (0.2, 0.475)),
        ((0.2, 3.0), (0.5, 0.6)),  # above
        ((0.01, 0.0), (0.1, 0.1)),  # below
    ]:
        first["lr"], second["lr"] = rates
        assert length_of_ascent(optimizer, parameters) == pytest.approx(radii, rel=1e-9)


def test_with_a_scheduler_it_falls_from_rho_to_rho_min(bowl):
    valley = bowl()
    optimizer = GSAM(torch.optim.SGD([valley.weights], lr=0.2), rho=0.5, rho_min=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    radii = []
    for _ in range(5):
        radii += length_of_ascent(optimizer, [valley.weights])
        optimizer.step(valley.closure(optimizer))
        scheduler.step()
    share = 0.5 + 0.5 * torch.cos(torch.linspace(0, torch.pi, 5, dtype=torch.float64))
    assert radii == pytest.approx((0.1 + 0.4 * share).tolist(), rel=1e-9)


def test_the_full_rate_may_be_given_where_a_warm_up_has_changed_it_already(bowl):
    valley = bowl()
    base = torch.optim.SGD([{"params": [valley.weights], "full_lr": 0.4}], lr=0.1)
    optimizer = GSAM(base, rho=0.5, rho_min=0.1)
    assert length_of_ascent(optimizer, [valley.weights]) == pytest.approx([0.2])


def test_a_group_that_is_added_has_the_full_rate_of_its_own(bowl):
    valley, more = bowl(), bowl()
    optimizer = GSAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.5, rho_min=0.1)
    optimizer.add_param_group({"params": [more.weights], "lr": 0.4})
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.05, 0.1
    assert length_of_ascent(optimizer, [valley.weights, more.weights]) == pytest.approx([0.3, 0.2])


def test_the_rate_may_be_a_tensor(bowl):
    valley = bowl()
    rate = torch.tensor(0.1, dtype=torch.float64)
    optimizer = GSAM(torch.optim.SGD([valley.weights], lr=rate), rho=0.5, rho_min=0.1)
    rate.fill_(0.05)
    assert length_of_ascent(optimizer, [valley.weights]) == pytest.approx([0.3])


def test_in_a_resumed_run_the_full_rate_is_that_of_the_first(bowl):
    first, second = bowl(), bowl()
    optimizer = GSAM(torch.optim.SGD([first.weights], lr=0.2), rho=0.5, rho_min=0.1)
    optimizer.param_groups[0]["lr"] = 0.1
    resumed = GSAM(torch.optim.SGD([second.weights], lr=0.1), rho=0.5, rho_min=0.1)
    assert length_of_ascent(resumed, [second.weights]) == pytest.approx([0.5])
    resumed.load_state_dict(optimizer.state_dict())
    assert length_of_ascent(resumed, [second.weights]) == pytest.approx([0.3])


def test_a_plain_state_of_the_base_brings_its_rate_as_the_full_one(bowl):
    valley = bowl()
    optimizer = GSAM(torch.optim.SGD([valley.weights], lr=0.2), rho=0.5, rho_min=0.1)
    optimizer.base.load_state_dict(torch.optim.SGD([valley.weights], lr=0.3).state_dict())
    assert length_of_ascent(optimizer, [valley.weights]) == pytest.approx([0.5])
    optimizer.param_groups[0]["lr"] = 0.15
    assert length_of_ascent(optimizer, [valley.weights]) == pytest.approx([0.3])


def test_without_rho_min_the_radius_is_constant(bowl):
    valley = bowl()
    optimizer = GSAM(torch.optim.SGD([valley.weights], lr=0.2), rho=0.5)
    optimizer.param_groups[0]["lr"] = 0.001
    assert length_of_ascent(optimizer, [valley.weights]) == pytest.approx([0.5])
    assert "full_lr" not in optimizer.param_groups[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": -0.1}, "alpha must be a finite number of at least 0"),
        ({"rho_min": -0.1}, "rho_min must be a finite number"),
        ({"lr_min": float("nan")}, "lr_min must be a finite number"),
        ({"rho_min": 0.1, "lr_min": 0.2}, r"the full learning rate of a group, 0\.2, is not above lr_min 0\.2"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(bowl, given, message):
    with pytest.raises(ValueError, match=message):
        GSAM(torch.optim.SGD([bowl().weights], lr=0.2), **given)
