import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_optim import SAM
from torch import nn
from torch.nn.utils import get_total_norm


@pytest.mark.parametrize("rho", [0.0, 0.05, 2.0])
def test_twenty_steps_on_a_quadratic_follow_the_closed_form(bowl, rho):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.05), rho=rho)
    A, w = valley.A, valley.start
    for _ in range(20):
        gradient = A @ w
        loss = optimizer.step(valley.closure(optimizer))
        torch.testing.assert_close(loss, w @ A @ w / 2, rtol=1e-8, atol=0)
        w = w - 0.05 * (A @ (w + rho * gradient / (gradient.norm() + 1e-12)))
        torch.testing.assert_close(valley.weights.detach(), w, rtol=1e-8, atol=1e-12)


def test_twenty_steps_follow_the_formula(follow, base):
    def formula(at, w, radii, step):
        g = at(w)
        norm = get_total_norm(g)  # over all groups together
        return at([x + rho * y / (norm + 1e-12) for x, y, rho in zip(w, g, radii, strict=True)])

    follow(lambda base, model: SAM(base, rho=0.05), formula, base)


def test_momentum_and_weight_decay_belong_to_the_step_at_the_weights_alone(training):
    ours = training()
    base = torch.optim.SGD(ours.groups(rho=0.2, weight_decay=0.01), lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=0.05)
    w, velocity = ours.weights(), None
    rhos, decays = [0.2, 0.2, 0.05, 0.05], [0.01, 0.01, 0.0, 0.0]
    for batch in ours.batches(20):
        g = ours.gradients(w, *batch)
        norm = sum(x.square().sum() for x in g).sqrt()
        moved = [x + rho * y / (norm + 1e-12) for x, y, rho in zip(w, g, rhos, strict=True)]
        g = [x + d * y for x, y, d in zip(ours.gradients(moved, *batch), w, decays, strict=True)]  # not d * moved
        velocity = g if velocity is None else [0.9 * v + x for v, x in zip(velocity, g, strict=True)]
        w = [x - 0.1 * v for x, v in zip(w, velocity, strict=True)]
        ours.step(optimizer, *batch)
        for mine, expected in zip(ours.weights(), w, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


def test_twenty_steps_of_adamw_follow_the_formula_with_moments_of_the_perturbed_gradients(training):
    ours = training()
    optimizer = SAM(torch.optim.AdamW(ours.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1), rho=0.1)
    w = ours.weights()
    m, v = [torch.zeros_like(x) for x in w], [torch.zeros_like(x) for x in w]
    for t, batch in enumerate(ours.batches(20), start=1):
        g = ours.gradients(w, *batch)
        norm = sum(x.square().sum() for x in g).sqrt()
        g = ours.gradients([x + 0.1 * y / (norm + 1e-12) for x, y in zip(w, g, strict=True)], *batch)
        for i in range(len(w)):
            m[i] = 0.9 * m[i] + 0.1 * g[i]
            v[i] = 0.99 * v[i] + 0.01 * g[i] ** 2
            w[i] = w[i] * (1 - 0.01 * 0.1) - 0.01 * (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.99**t)).sqrt() + 1e-8)
        ours.step(optimizer, *batch)
        for mine, expected in zip(ours.weights(), w, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)


@settings(max_examples=25, deadline=None, derandomize=True)
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
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))


# Gradients that are zero, missing, not finite, of low precision


def test_a_zero_gradient_moves_nothing(bowl):
    valley = bowl()
    with torch.no_grad():
        valley.weights.zero_()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.5)
    optimizer.step(valley.closure(optimizer))
    assert torch.equal(valley.weights.detach(), torch.zeros_like(valley.start))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_gives_no_ascent(bowl, bad):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.5)
    valley.weights.grad = torch.tensor([1.0, bad, 0.0], dtype=torch.float64)
    optimizer.ascend()
    assert not valley.moved()


def test_low_precision_gradients_are_summed_in_float32():
    weights = nn.Parameter(torch.zeros(100_000, dtype=torch.bfloat16))
    optimizer = SAM(torch.optim.SGD([weights], lr=0.1), rho=100.0)
    weights.grad = torch.full_like(weights, 1.0)
    optimizer.ascend()
    torch.testing.assert_close(weights.detach().double().norm(), torch.tensor(100.0).double(), rtol=0.004, atol=0)


@pytest.mark.parametrize("size", [1.0, 60000.0])
def test_half_precision_gradients_whose_squares_overflow_still_give_the_whole_radius(size):
    weights = nn.Parameter(torch.zeros(1000, dtype=torch.float16))
    optimizer = SAM(torch.optim.SGD([weights], lr=0.1), rho=0.05)
    weights.grad = torch.full_like(weights, size)
    optimizer.ascend()
    torch.testing.assert_close(weights.detach().double().norm(), torch.tensor(0.05).double(), rtol=1e-3, atol=0)


def test_weights_of_several_precisions_are_moved_together_each_in_its_own():
    wide, narrow = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    optimizer = SAM(torch.optim.SGD([wide, narrow], lr=0.1), rho=1.0)
    wide.grad, narrow.grad = torch.tensor([2.0, 4.0]), torch.tensor([4.0, 0.0], dtype=torch.bfloat16)
    optimizer.ascend()  # the norm is 6
    torch.testing.assert_close(wide.detach(), torch.tensor([2.0, 4.0]) / 6)
    torch.testing.assert_close(narrow.detach(), (torch.tensor([4.0, 0.0]) / 6).bfloat16())


# Mistakes


@pytest.mark.parametrize("friendly", [float("inf"), float("nan")])
def test_a_share_of_the_mean_that_is_not_finite_is_refused(friendly, bowl):
    with pytest.raises(ValueError, match="friendly must be a finite number"):
        SAM(torch.optim.SGD([bowl().weights], lr=0.1), friendly=friendly)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_of_the_mean_out_of_range_is_refused(decay, bowl):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got"):
        SAM(torch.optim.SGD([bowl().weights], lr=0.1), friendly=1.0, decay=decay)


@pytest.mark.parametrize(("eta", "error"), [(-0.1, ValueError), ("0.01", TypeError)])
def test_an_eta_out_of_range_is_refused(eta, error, bowl):
    with pytest.raises(error, match="eta must be a"):
        SAM(torch.optim.SGD([bowl().weights], lr=0.1), eta=eta)


def test_adaptive_without_a_model_is_told_what_it_needs(bowl):
    with pytest.raises(TypeError, match=r"adaptive needs the names of the parameters: SAM\(..., model=model\)"):
        SAM(torch.optim.SGD([bowl().weights], lr=0.1), adaptive=True)


def test_a_parameter_that_the_model_does_not_have_is_told_so_and_nothing_moves(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), adaptive=True, model=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"shape \(3,\) of the optimizer is not one of the model"):
        optimizer.step(valley.closure(optimizer))
    assert not valley.moved()
