"""LP-ReLU: stored cases, slopes, continuity, learnable settings."""

import pytest
import torch
from robust_models.layers.lp_relu import LPReLU


@pytest.mark.shared_data
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_stored_numbers(golden, version):
    case = golden("modules").stored["cases"][f"lp_relu_{version}"]
    found = getattr(LPReLU, version)().double()(torch.tensor(case["input"], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(case["output"], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("learnable", [False, True])
def test_the_slope_of_every_segment(learnable):
    layer = LPReLU((1.0, 2.0, 4.0), (0.5, 0.25, -0.125), learnable=learnable).double()
    x = torch.tensor([-3.0, -0.1, 0.5, 1.5, 3.0, 100.0], dtype=torch.float64, requires_grad=True)
    y = layer(x)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    assert slopes.tolist() == [0, 0, 1, 0.5, 0.25, -0.125]
    torch.testing.assert_close(y, torch.tensor([0, 0, 0.5, 1.25, 1.75, 2 - 0.125 * 96]).double())


def test_it_is_continuous_where_the_file_of_the_authors_jumps():
    edges = torch.tensor([0.0, 5.0, 8.0], dtype=torch.float64)
    layer = LPReLU.v2().double()
    torch.testing.assert_close(layer(edges - 1e-9), layer(edges + 1e-9), rtol=0, atol=1e-8)


def test_large_values_in_half_precision_do_not_cancel():
    x = torch.tensor([300.0, 1000.0], dtype=torch.bfloat16)
    torch.testing.assert_close(LPReLU()(x), torch.tensor([24.5, 59.5]).bfloat16(), rtol=0.01, atol=0)
    assert LPReLU()(x).dtype == torch.bfloat16


def test_thresholds_and_slopes_learn_with_the_gradients_of_the_formula():
    layer = LPReLU.v2(learnable=True).double()
    assert list(layer.state_dict()) == ["thresholds", "slopes"]
    assert list(LPReLU.v2().state_dict()) == []
    x = torch.tensor([-1.0, 3.0, 6.0, 20.0], dtype=torch.float64)

    def formula(thresholds, slopes):
        first, second = thresholds
        middle = first + slopes[0] * (second - first)
        return torch.stack([x[0] * 0, x[1], first + slopes[0] * (x[2] - first), middle + slopes[1] * (x[3] - second)])

    weights = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    found = torch.autograd.grad(layer(x) @ weights, [layer.thresholds, layer.slopes])
    expected = torch.autograd.grad(formula(layer.thresholds, layer.slopes) @ weights, [layer.thresholds, layer.slopes])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("thresholds", "slopes"), [((), ()), ((1.0,), (0.1, 0.2)), ((2.0, 1.0), (0.1, 0.1)), ((0.0,), (0.1,))], ids=str
)
def test_thresholds_that_do_not_rise(thresholds, slopes):
    with pytest.raises(ValueError, match="positive, rising thresholds and as many slopes, got"):
        LPReLU(thresholds, slopes)


def test_its_description():
    assert repr(LPReLU.v2()) == "LPReLU(thresholds=[5.0, 8.0], slopes=[0.05, 0.02], learnable=False)"
    with torch.device("meta"):
        assert repr(LPReLU()) == "LPReLU(segments=1)"
