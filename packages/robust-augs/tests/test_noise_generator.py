import copy

import pytest
import torch
from robust_augs.noise_generator import NoiseGenerator


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network_of(kernel_size=1, seed=0, scale=60.0, **settings):
    """A generator in double precision, whose weights are so large that they matter."""
    network = NoiseGenerator(kernel_size=kernel_size, generator=generator(seed), **settings).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    return network


def normals_of(network, *shape, seed=1):
    border = 2 * network.border
    return torch.randn(*shape[:2], shape[2] + border, shape[3] + border, generator=generator(seed), dtype=torch.float64)


def by_hand(network, normals):
    """Every pixel on its own in explicit loops."""
    layers = [module for module in network.layers if isinstance(module, torch.nn.Conv2d)]
    b = network.border
    height, width = normals.shape[2] - 2 * b, normals.shape[3] - 2 * b
    result = torch.empty(len(normals), normals.shape[1], height, width, dtype=normals.dtype)
    for n in range(len(normals)):
        for y in range(height):
            for x in range(width):
                window = normals[n, :, y : y + 2 * b + 1, x : x + 2 * b + 1]
                hidden = torch.einsum("ij,jyx->iyx", layers[0].weight[:, :, 0, 0], window)
                hidden = (hidden + layers[0].bias[:, None, None]).relu()
                hidden = (torch.einsum("ijyx,jyx->i", layers[1].weight, hidden) + layers[1].bias).relu()
                hidden = (layers[2].weight[:, :, 0, 0] @ hidden + layers[2].bias).relu()
                last = layers[3].weight[:, :, 0, 0] @ hidden + layers[3].bias
                result[n, :, y, x] = last + window[:, b, b]
    return result


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_network_is_four_convolutions_and_its_input(kernel_size):
    network = network_of(kernel_size)
    normals = normals_of(network, 2, 3, 4, 5)
    with torch.no_grad():
        noise = network(normals)
        assert noise.shape == (2, 3, 4, 5)
        assert (
            noise - normals[..., network.border : 4 + network.border, network.border : 5 + network.border]
        ).abs().max() > 0.1
        torch.testing.assert_close(noise, by_hand(network, normals), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_noise_depends_on_its_pixel_or_on_its_neighbours(kernel_size):
    network = network_of(kernel_size)
    normals = normals_of(network, 1, 3, 9, 9)
    moved = normals.clone()
    moved[:, :, 4 + network.border, 5 + network.border] += 3
    with torch.no_grad():
        changed = (network(moved) - network(normals)).abs().sum(1)[0] > 1e-9
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[4 - network.border : 5 + network.border, 5 - network.border : 6 + network.border] = True
    assert torch.equal(changed, expected)


def test_weights_start_from_small_normals_and_biases_from_0():
    network = NoiseGenerator(hidden=200, kernel_size=3, generator=generator())
    weight = network.layers[2].weight
    assert abs(weight.std() - 0.01) < 1e-4
    assert abs(weight.mean()) < 1e-4
    assert all(not value.any() for name, value in network.named_parameters() if name.endswith("bias"))
    normals = torch.randn(2, 3, 12, 12, generator=generator())
    torch.testing.assert_close(NoiseGenerator(kernel_size=3)(normals), normals[..., 1:-1, 1:-1], rtol=0, atol=1e-3)


def test_the_published_number_of_parameters():
    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(NoiseGenerator()) == (3 * 20 + 20) + 2 * (20 * 20 + 20) + (20 * 3 + 3)
    assert count(NoiseGenerator(kernel_size=3)) == count(NoiseGenerator()) + 8 * 20 * 20


def test_the_generator_alone_decides():
    state = torch.get_rng_state()
    first, second = (NoiseGenerator(generator=generator(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    second.reset_parameters(generator=generator(4))
    assert not torch.equal(first.layers[0].weight, second.layers[0].weight)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_each_image_gets_the_noise_of_its_version(kernel_size):
    network = network_of(kernel_size)
    versions = []
    for seed in (5, 6):
        versions.append(copy.deepcopy(network))
        network.remember()
        network.load_state_dict(network_of(kernel_size, seed=seed).state_dict() | {"earlier": network.earlier})
    versions = [network, *versions]
    which = torch.tensor([2, 0, 1, 2, 0])
    normals = normals_of(network, 5, 3, 4, 4)
    with torch.no_grad():
        noise = network.replay(normals, which)
        for i, version in enumerate(which):
            torch.testing.assert_close(noise[i], versions[version](normals[i : i + 1])[0], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(noise[0], versions[1](normals[:1])[0])


def test_what_is_remembered_does_not_change_any_more():
    network = NoiseGenerator(generator=generator())
    network.remember()
    kept = network.earlier.clone()
    network.reset_parameters(generator=generator(1))
    network.remember()
    assert torch.equal(network.earlier[:1], kept)
    assert not torch.equal(network.earlier[1], kept[0])
    assert not network.earlier.requires_grad


def test_the_state_holds_however_many_versions(tmp_path):
    network = NoiseGenerator(generator=generator())
    for seed in range(3):
        network.reset_parameters(generator=generator(seed))
        network.remember()
    holder = torch.nn.ModuleDict({"noise": network})
    torch.save(holder.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    restored = torch.nn.ModuleDict({"noise": NoiseGenerator()})
    for start in (0, 5):
        restored["noise"].earlier = torch.empty(start, network.earlier.shape[1])
        restored.load_state_dict(state)
        assert torch.equal(restored["noise"].earlier, network.earlier)
        assert torch.equal(restored["noise"].layers[0].weight, network.layers[0].weight)
    assert torch.equal(copy.deepcopy(restored["noise"]).earlier, network.earlier)


def test_the_state_of_another_kind_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        NoiseGenerator(kernel_size=3).load_state_dict(NoiseGenerator().state_dict())


def test_another_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be 1 or 3, got 5"):
        NoiseGenerator(kernel_size=5)
