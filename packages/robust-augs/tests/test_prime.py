from dataclasses import dataclass, replace

import pytest
import torch
from robust_augs._draws import select
from robust_augs.color import RandomColor
from robust_augs.diffeomorphism import Diffeomorphism
from robust_augs.filter import RandomFilter
from robust_augs.prime import PRIME
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Added:
    amount: Tensor


@dataclass(frozen=True, kw_only=True)
class Times:
    """A primitive that multiplies by a fixed factor and notes which images it was given."""

    factor: float

    def sample(self, shape, generator=None, *, device="cpu"):
        return Added(amount=torch.rand(shape[0], generator=generator))

    def apply(self, images, draws):
        assert 0 < len(images) == len(draws.amount)  # only where it was drawn, and never for nothing
        return images * self.factor


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def one_by_one(prime, images, draws):
    """The published formula, image by image, chain by chain and step by step."""
    result = []
    for n in range(len(images)):
        mixture = torch.zeros_like(images[n])
        for w in range(prime.width):
            chain = images[n : n + 1]
            for number, place in zip(draws.primitive[n, w].tolist(), draws.place[n, w].tolist(), strict=True):
                if number >= 0:
                    parameters = select(draws.parameters[number], slice(place, place + 1))
                    chain = prime.primitives[number].apply(chain, parameters)
            mixture += draws.weights[n, w] * chain[0]
        result.append((1 - draws.share[n]) * images[n] + draws.share[n] * mixture)
    return torch.stack(result)


@pytest.mark.parametrize(
    "prime",
    [PRIME.cifar, PRIME.imagenet, PRIME(width=1, depth=4), PRIME(primitives=(RandomFilter(), RandomColor()), width=5)],
    ids=["CIFAR", "ImageNet", "one deep chain", "two primitives"],
)
def test_equals_the_formula_with_the_same_draws(prime):
    images = torch.rand(7, 3, 12, 12, generator=generator(), dtype=torch.float64)
    draws = prime.sample(images.shape, generator(1))
    torch.testing.assert_close(prime.apply(images, draws), one_by_one(prime, images, draws), rtol=0, atol=1e-6)


def test_chains_compose_the_primitives_that_were_drawn():
    """With primitives that multiply, the result of each image is known in closed form."""
    prime = PRIME(primitives=(Times(factor=0.5), Times(factor=0.25)), width=2)
    images = torch.ones(50, 1, 1, 1, dtype=torch.float64)
    draws = prime.sample(images.shape, generator())
    factor = torch.tensor([0.5, 0.25, 1.0], dtype=torch.float64)[draws.primitive].prod(dim=2)
    expected = 1 - draws.share + draws.share * (draws.weights * factor).sum(dim=1)
    torch.testing.assert_close(prime.apply(images, draws).flatten(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_goes_from_the_image_to_the_mixture_alone(share):
    images = torch.rand(4, 3, 8, 8, generator=generator())
    draws = PRIME.cifar.sample(images.shape, generator())
    draws = replace(draws, share=torch.full((4,), share))
    assert torch.equal(PRIME.cifar.apply(images, draws), images) == (share == 0)


def test_draws_are_distributed_as_published():
    count = 20_000
    prime = PRIME(primitives=(RandomFilter(), RandomFilter(), RandomFilter()))
    draws = prime.sample(torch.Size([count, 1, 2, 2]), generator())
    ended = draws.primitive < 0
    depth = (~ended).sum(dim=2)
    assert torch.equal(ended, torch.arange(3) >= depth.unsqueeze(2))  # a chain that has ended does not go on
    for length in (1, 2, 3):
        assert abs((depth == length).float().mean().item() - 1 / 3) < 0.01  # five standard deviations
    for number in range(3):
        assert abs((draws.primitive[~ended] == number).float().mean().item() - 1 / 3) < 0.008
    assert (depth[:, 0] != depth[:, 1]).float().mean() > 0.6  # drawn for each chain
    torch.testing.assert_close(draws.weights.sum(dim=1), torch.ones(count))
    # Each weight of a Dirichlet(1, 1, 1) is a Beta(1, 2): P(w < q) = 1 - (1 - q)^2. The share is uniform.
    for quantile in (0.1, 0.5, 0.9):
        below = (draws.weights < quantile).float().mean(dim=0)
        assert below.tolist() == pytest.approx([1 - (1 - quantile) ** 2] * 3, abs=0.02)
        assert abs((draws.share < quantile).float().mean().item() - quantile) < 0.018


def test_every_step_has_parameters_of_its_own():
    draws = PRIME.cifar.sample(torch.Size([40, 3, 8, 8]), generator())
    deformation, color, random_filter = draws.parameters
    for number, values in enumerate([deformation.displacement[:, 0, 3, 3], color.temperature, random_filter.sigma]):
        places = draws.place[draws.primitive == number]
        assert torch.equal(places.sort().values, torch.arange(len(values)))
        assert len(values.unique()) > 0.9 * len(values)
    assert (draws.place[draws.primitive < 0] == -1).all()


def test_images_do_not_influence_each_other():
    prime, images = PRIME.cifar, torch.rand(6, 3, 12, 12, generator=generator(), dtype=torch.float64)
    draws = prime.sample(images.shape, generator(1))
    together = prime.apply(images, draws)

    def some(rows):
        names = ("share", "weights", "primitive", "place")
        return replace(draws, **{name: getattr(draws, name)[rows] for name in names})

    order = torch.tensor([4, 2, 0, 5, 1, 3])
    torch.testing.assert_close(prime.apply(images[order], some(order)), together[order], rtol=0, atol=1e-7)
    for n in range(6):
        alone = prime.apply(images[n : n + 1], some(slice(n, n + 1)))
        torch.testing.assert_close(alone, together[n : n + 1], rtol=0, atol=1e-7)


def test_white_stays_within_the_range():
    images = torch.ones(64, 1, 4, 4)
    prime = PRIME(primitives=(Times(factor=1.0),))
    assert prime(images, generator=generator()).max() <= 1


def test_without_the_deformation_images_need_not_be_square():
    prime = PRIME(primitives=(RandomColor(), RandomFilter()))
    assert prime(torch.rand(2, 3, 6, 9), generator=generator()).shape == (2, 3, 6, 9)
    with pytest.raises(ValueError, match="square images only, got 6 x 9"):
        PRIME()(torch.rand(2, 3, 6, 9))


def test_the_published_settings():
    assert PRIME.cifar.primitives == (Diffeomorphism(cut_max=100), RandomColor.cifar, RandomFilter(sigma_max=4.0))
    assert PRIME.imagenet == PRIME()
    assert PRIME().primitives == (Diffeomorphism(cut_max=500), RandomColor.imagenet, RandomFilter(sigma_max=4.0))
    assert (PRIME().width, PRIME().depth) == (3, -1)


def test_a_list_of_primitives_is_kept_as_a_tuple():
    assert PRIME(primitives=[RandomFilter()]) == PRIME(primitives=(RandomFilter(),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"primitives": ()}, "PRIME needs primitives to choose from"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, or -1 for a random one of 1 to 3, got 0"),
        ({"depth": -2}, "depth must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PRIME(**settings)
