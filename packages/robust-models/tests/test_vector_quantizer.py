"""The codebook: nearest vectors and where the gradient goes."""

import pytest
import torch
from robust_models.vector_quantizer import VectorQuantizer


@pytest.fixture
def latents():
    return torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0)).double()


def quantizer(straight_through=False):
    torch.manual_seed(1)
    layer = VectorQuantizer(7, 5, straight_through=straight_through).double()
    torch.nn.init.normal_(layer.embedding.weight)
    return layer


def test_takes_the_nearest_vector(latents):
    layer = quantizer()
    codebook = layer.embedding.weight
    indices = layer.indices(latents)
    assert len(indices.unique()) > 3
    for image, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)):
        cell = latents[image, :, row, column]
        nearest = min(range(7), key=lambda code: (cell - codebook[code]).square().sum().item())
        assert indices[image, row, column] == nearest
        assert torch.equal(layer(latents)[image, :, row, column], codebook[nearest])
    assert torch.equal(layer.vectors(indices), layer(latents))


def test_codes_are_their_own_codes(latents):
    layer = quantizer()
    once = layer(latents)
    assert torch.equal(layer(once), once)


@pytest.mark.parametrize("straight_through", [False, True])
def test_gradient(latents, straight_through):
    layer = quantizer(straight_through)
    latents.requires_grad_()
    upstream = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2)).double()
    found = layer(latents)
    assert torch.equal(found, quantizer()(latents))
    found.backward(upstream)
    if straight_through:
        torch.testing.assert_close(latents.grad, upstream, rtol=0, atol=0)
    else:
        assert latents.grad is None
    flat = upstream.movedim(1, -1).flatten(0, 2)
    expected = torch.zeros(7, 5, dtype=torch.float64).index_add(0, layer.indices(latents).flatten(), flat)
    torch.testing.assert_close(layer.embedding.weight.grad, expected)


def test_distances_stay_exact_under_autocast():
    torch.manual_seed(0)
    layer = VectorQuantizer(64, 8)
    with torch.no_grad():
        layer.embedding.weight.copy_(10 + 0.3 * torch.randn(64, 8))  # in bfloat16 these are hard to tell apart
    latents = 10 + 0.3 * torch.randn(1, 8, 16, 16)
    exact = (
        (latents.double().movedim(1, -1)[..., None, :] - layer.embedding.weight.double()).square().sum(-1).argmin(-1)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer.indices(latents)
    assert torch.equal(found, exact)


def test_starts_uniform():
    torch.manual_seed(0)
    weight = VectorQuantizer(1000, 64).embedding.weight
    assert weight.abs().max() <= 1e-3
    assert weight.std().item() == pytest.approx(1e-3 / 3**0.5, rel=0.02)
