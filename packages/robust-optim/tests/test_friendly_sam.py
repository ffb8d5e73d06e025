import pytest
import torch
from robust_optim import SAM
from torch.nn.utils import get_total_norm


@pytest.mark.parametrize("friendly", [1.0, 0.4, -0.5])
def test_the_ascent_is_along_the_gradient_less_the_mean_that_includes_it(follow, base, friendly):
    means = [0.0] * 4

    def formula(at, w, radii, step):
        g = at(w)
        means[:] = [0.8 * m + 0.2 * x for m, x in zip(means, g, strict=True)]
        d = [x - friendly * m for x, m in zip(g, means, strict=True)]
        norm = get_total_norm(d)
        return at([x + rho * y / (norm + 1e-12) for x, y, rho in zip(w, d, radii, strict=True)])

    follow(lambda base, model: SAM(base, friendly=friendly, decay=0.8), formula, base)


def test_it_may_be_adaptive_as_well(follow, base):
    means = [0.0] * 4

    def formula(at, w, radii, step):
        g = at(w)
        means[:] = [0.9 * m + 0.1 * x for m, x in zip(means, g, strict=True)]
        T = [w[0].abs() + 0.01, 1.0, w[2].abs() + 0.01, 1.0]
        d = [t * (x - m) for t, x, m in zip(T, g, means, strict=True)]
        norm = get_total_norm(d)
        return at([x + rho * t * y / (norm + 1e-12) for x, t, y, rho in zip(w, T, d, radii, strict=True)])

    follow(lambda base, model: SAM(base, friendly=1.0, adaptive=True, model=model), formula, base)


def test_the_first_ascent_is_along_the_gradient_since_the_mean_starts_at_zero(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.5, friendly=1.0, decay=0.75)
    valley.weights.grad = g = valley.A @ valley.start
    optimizer.ascend()
    torch.testing.assert_close(valley.weights.detach() - valley.start, 0.5 * g / g.norm(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(optimizer.directions[valley.weights], 0.25 * g)


def test_a_gradient_that_is_all_mean_moves_nothing(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.5, friendly=1.0, decay=0.0)
    valley.weights.grad = torch.ones(3, dtype=torch.float64)
    optimizer.ascend()
    assert not valley.moved()


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_stays_out_of_the_mean(bowl, bad):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.5, friendly=1.0)
    optimizer.step(valley.closure(optimizer))
    mean = optimizer.directions[valley.weights].clone()
    before = valley.weights.detach().clone()
    valley.weights.grad = torch.tensor([1.0, bad, 0.0], dtype=torch.float64)
    optimizer.ascend()
    assert torch.equal(valley.weights.detach(), before)
    optimizer.restore()
    optimizer.step(valley.closure(optimizer))
    g = valley.A @ before
    torch.testing.assert_close(optimizer.directions[valley.weights], 0.9 * mean + 0.1 * g)


def test_several_closures_would_each_move_the_mean_and_are_refused(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), friendly=1.0)
    with pytest.raises(TypeError, match="SAM with these settings takes one closure, got 2"):
        optimizer.step([valley.closure(optimizer)] * 2)
    assert not valley.moved()
