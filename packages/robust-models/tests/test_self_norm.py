"""SelfNorm: stored cases, closed forms, and maps of a single pixel."""

import pytest
import torch
from robust_models.layers.self_norm import SelfNorm


@pytest.mark.shared_data
@pytest.mark.parametrize("two_gates", [False, True])
def test_the_stored_numbers(golden, named, by_rule, two_gates):
    case = golden("modules").stored["cases"][f"selfnorm_is_two_{two_gates}"]
    layer = SelfNorm(6, two_gates=two_gates)
    parameters = dict(layer.named_parameters())
    entries = [
        [key, list(value.shape), "param" if key in parameters else "buffer"]
        for key, value in layer.state_dict().items()
    ]
    assert entries == case["state_dict"]
    by_rule(layer, 1).double()
    x = 2 * torch.from_numpy(named("1:x", 4 * 6 * 7 * 9)).view(4, 6, 7, 9) + 0.5
    for mode in ("eval", "train"):
        expected = torch.tensor(case[mode]["data"], dtype=torch.float64).view(x.shape)
        torch.testing.assert_close(layer.train(mode == "train")(x), expected, rtol=0, atol=1e-9)
    for name, expected in case["g_bn_after"].items():
        found = getattr(layer.g_bn, name)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11)


def neutral(two_gates):
    """A layer that puts the mean through the first gate, and the deviation through the second."""
    layer = SelfNorm(2, two_gates).double().eval()
    for name, weights in (("g", (1.0, 0.0)), ("f", (0.0, 1.0))):
        if hasattr(layer, f"{name}_fc"):
            with torch.no_grad():
                getattr(layer, f"{name}_fc").weight.copy_(torch.tensor(weights).expand(2, 1, 2))
            getattr(layer, f"{name}_bn").eps = 0.0
    return layer


def test_the_gates_in_closed_form():
    x = torch.tensor([[[[1.0, 3.0]], [[-2.0, 4.0]]]], dtype=torch.float64)
    mean, deviation = torch.tensor([2.0, 1.0]).double(), torch.tensor([2.0, 18.0]).double().sqrt()
    g, f = (each.sigmoid().view(1, 2, 1, 1) for each in (mean, deviation))
    torch.testing.assert_close(neutral(two_gates=False)(x), g * x)
    centre = mean.view(1, 2, 1, 1)
    torch.testing.assert_close(neutral(two_gates=True)(x), g * (x - centre) + f * centre)


@pytest.mark.parametrize("two_gates", [False, True])
def test_a_single_pixel_has_no_deviation_and_finite_gradients(two_gates):
    layer = SelfNorm(3, two_gates).train()
    x = torch.randn(4, 3, 1, 1, requires_grad=True)
    layer(x).square().sum().backward()
    for each in (x, *layer.parameters()):
        assert torch.isfinite(each.grad).all()
    expected = neutral(two_gates=False)(torch.full((1, 2, 1, 1), 2.0, dtype=torch.float64))
    torch.testing.assert_close(expected, torch.full_like(expected, 2 / (1 + 2.718281828459045**-2)))


def test_a_constant_map_has_finite_gradients():
    x = torch.ones(4, 3, 5, 5, requires_grad=True)
    SelfNorm(3, two_gates=True).train()(x).sum().backward()
    assert torch.isfinite(x.grad).all()
