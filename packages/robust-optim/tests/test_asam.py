import pytest
import torch
from robust_optim import SAM
from torch import nn
from torch.nn.utils import get_total_norm

WEIGHTS = [True, False, True, False]  # of the network: weight, bias, weight, bias


def asam(eta, chosen):
    def formula(at, w, radii, step):
        T = [x.abs() + eta if c else torch.ones_like(x) for x, c in zip(w, chosen, strict=True)]
        g = at(w)
        norm = get_total_norm([t * x for t, x in zip(T, g, strict=True)])
        moves = [rho * t * t * x / (norm + 1e-12) for rho, t, x in zip(radii, T, g, strict=True)]
        return at([x + e for x, e in zip(w, moves, strict=True)])

    return formula


@pytest.mark.parametrize("eta", [0.0, 0.01, 0.3])
def test_weights_are_scaled_and_biases_are_not(follow, base, eta):
    follow(lambda base, model: SAM(base, adaptive=True, eta=eta, model=model), asam(eta, WEIGHTS), base)


def test_a_choice_by_name_and_parameter_says_which_tensors_are_scaled(follow, base):
    def adaptive(name, parameter):
        assert isinstance(parameter, nn.Parameter)
        return name in ("0.bias", "3.weight", "2.weight")

    formula = asam(0.01, [False, True, True, False])
    follow(lambda base, model: SAM(base, adaptive=adaptive, model=model), formula, base)


def test_eta_zero_on_all_tensors_is_what_common_code_does(follow, base):
    def formula(at, w, radii, step):
        g = at(w)
        norm = get_total_norm([x.abs() * y for x, y in zip(w, g, strict=True)])
        return at([x + x.pow(2) * y * rho / (norm + 1e-12) for x, y, rho in zip(w, g, radii, strict=True)])

    follow(lambda base, model: SAM(base, adaptive=lambda *_: True, eta=0.0, model=model), formula, base)


def test_a_choice_of_no_tensor_is_sam(training, same):
    ours, theirs = training(), training()
    a = SAM(torch.optim.SGD(ours.parameters(), lr=0.1), rho=0.3, adaptive=lambda *_: False, model=ours.model)
    b = SAM(torch.optim.SGD(theirs.parameters(), lr=0.1), rho=0.3)
    for batch in ours.batches(5):
        ours.step(a, *batch)
        theirs.step(b, *batch)
        assert same(ours.weights(), theirs.weights())


def test_scaling_a_layer_up_and_the_next_down_changes_the_ascent_with_them():
    """The reason for ASAM: with eta = 0 the perturbed function stays the same under such a rescaling."""
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def perturbed_outputs(factor, **settings):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
        with torch.no_grad():
            model[0].weight.mul_(factor)
            model[2].weight.div_(factor)
        optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5, model=model, **settings)
        model(inputs).square().mean().backward()
        optimizer.ascend()
        return model(inputs).detach()

    invariant = [perturbed_outputs(factor, adaptive=True, eta=0.0) for factor in (1.0, 8.0)]
    torch.testing.assert_close(*invariant, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(perturbed_outputs(1.0), perturbed_outputs(8.0), rtol=0.01)
