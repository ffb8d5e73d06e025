"""The standard objective against its formula."""

import pytest
import torch
from robust_train.objectives import Standard
from torch import nn


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_the_formula_in_float64(smoothing):
    """Mean of -sum_k q_k ln p_k with q = (1 - s) onehot + s / K, value and gradients."""
    torch.manual_seed(0)
    weight = torch.randn(3, 8, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, bias=False)).double()
    model[1].weight.data.copy_(weight)
    images, labels = torch.rand(5, 2, 2, 2, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])

    loss, metrics = Standard(label_smoothing=smoothing)(model, images, labels)
    loss.backward()

    logits = images.reshape(5, 8) @ weight.T
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    q = torch.full((5, 3), smoothing / 3, dtype=torch.float64)
    q[torch.arange(5), labels] += 1 - smoothing
    expected = -(q * p.log()).sum(1).mean()
    gradient = (p - q).T @ images.reshape(5, 8) / 5
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(model[1].weight.grad, gradient, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(metrics["loss"], 5 * expected, rtol=1e-12, atol=0)
    assert metrics["accuracy"] == (logits.argmax(1) == labels).sum()
    assert not metrics["loss"].requires_grad


def test_trains_on_the_images_as_they_are():
    images = torch.rand(2, 1, 2, 2)
    assert Standard().perturb(nn.Flatten(), images, torch.tensor([0, 1])) is images
