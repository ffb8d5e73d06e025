import dataclasses
import itertools

import pytest
import torch
from robust_augs._levels import as_levels
from robust_augs.augmix import AugMix, MixDraws
from robust_augs.chains import ChainDraws, apply_chains, sample_chains
from robust_augs.operations import OPERATIONS, OVERLAPPING, operate

MANY = torch.Size([20_000, 3, 1, 1])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(shape=(5, 3, 16, 12), seed=0):
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def some(draws, rows):
    return MixDraws(chains=draws.chains[rows], weights=draws.weights[rows], share=draws.share[rows])


def chain_by_chain(levels, draws, names):
    """The definition: one image, one chain and one operation after the other."""
    count, width, steps = draws.operation.shape
    result = torch.empty(count, width, *levels.shape[1:], dtype=levels.dtype)
    for image, chain in itertools.product(range(count), range(width)):
        state = levels[image : image + 1]
        for step in range(steps):
            at = (image, slice(chain, chain + 1), step)
            if draws.operation[image, chain, step] >= 0:
                name = names[draws.operation[image, chain, step]]
                state = operate(name, state, draws.strength[at], draws.sign[at])
        result[image, chain] = state[0]
    return result


@pytest.mark.parametrize("all_ops", [False, True])
@pytest.mark.parametrize("quantize", [False, True])
def test_equals_the_formula_image_by_image(quantize, all_ops):
    images = images_of((12, 3, 16, 12))
    augmix = AugMix(quantize=quantize, all_ops=all_ops)
    draws = augmix.sample(images.shape, generator())
    levels = (images * 255).round().to(torch.uint8) if quantize else images * 255
    chains = chain_by_chain(levels, draws.chains, augmix.operations).double() / 255
    weights, share = draws.weights.double()[..., None, None, None], draws.share.double()[:, None, None, None]
    expected = (1 - share) * images + share * (weights * chains).sum(dim=1)
    torch.testing.assert_close(augmix.apply(images, draws), expected, rtol=0, atol=1e-6)
    if quantize:
        single = augmix.apply(images.float(), draws)
        torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-6)


def test_chains_run_through_all_operations_as_drawn():
    levels = (images_of((4, 3, 9, 9)) * 255).to(torch.uint8)
    draws = sample_chains(4, width=2, depth=7, severity=9.0, operations=13, generator=generator(), device="cpu")
    assert set(draws.operation.flatten().tolist()) == set(range(13))
    names = OPERATIONS + OVERLAPPING
    assert torch.equal(apply_chains(levels, draws, names), chain_by_chain(levels, draws, names))
    backwards = torch.arange(3, -1, -1)
    assert torch.equal(
        apply_chains(levels[backwards], draws[backwards], names).flip(0), apply_chains(levels, draws, names)
    )


def test_a_share_of_zero_is_the_identity_and_one_chain_alone_is_that_chain():
    images = (images_of() * 255).round() / 255
    augmix = AugMix()
    draws = augmix.sample(images.shape, generator())
    none = dataclasses.replace(draws, share=torch.zeros(5))
    assert torch.equal(augmix.apply(images, none), images)
    for chain in range(3):
        weights = torch.zeros(5, 3)
        weights[:, chain] = 1
        alone = dataclasses.replace(draws, share=torch.ones(5), weights=weights)
        expected = chain_by_chain((images * 255).round().to(torch.uint8), draws.chains, OPERATIONS)[:, chain]
        torch.testing.assert_close(augmix.apply(images, alone), expected.double() / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize("quantize", [False, True])
def test_the_result_lies_between_the_image_and_its_chains(quantize):
    images = images_of((16, 3, 16, 12))
    augmix = AugMix(severity=10, quantize=quantize)
    draws = augmix.sample(images.shape, generator())
    levels = (images * 255).round().to(torch.uint8) if quantize else images * 255
    corners = torch.cat([apply_chains(levels, draws.chains, OPERATIONS).double() / 255, images[:, None]], dim=1)
    result = augmix.apply(images, draws)
    assert (result >= corners.amin(dim=1) - 1e-6).all()
    assert (result <= corners.amax(dim=1) + 1e-6).all()


def test_the_range_is_kept_where_weights_round_to_more_than_one():
    white = torch.ones(500, 1, 2, 2)
    draws = AugMix().sample(white.shape, generator())
    unchanged = dataclasses.replace(draws.chains, operation=torch.full_like(draws.chains.operation, -1))
    result = AugMix().apply(white, dataclasses.replace(draws, chains=unchanged))
    assert result.max() == 1
    torch.testing.assert_close(result, white)


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("shape", [(6, 3, 16, 12), (40, 3, 80, 80), (3, 1, 7, 9)], ids=str)
def test_a_batch_is_its_images_in_any_order(quantize, shape):
    images = images_of(shape).float()
    augmix = AugMix(quantize=quantize)
    draws = augmix.sample(images.shape, generator())
    together = augmix.apply(images, draws)
    order = torch.randperm(len(images), generator=generator(1))
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(augmix.apply(images[order], some(draws, order)), together[order], **close)
    for i in range(0, len(images), 5):
        torch.testing.assert_close(
            augmix.apply(images[i : i + 1], some(draws, slice(i, i + 1)))[0], together[i], **close
        )


def test_depths_operations_signs_and_strengths_are_uniform():
    draws = AugMix(severity=3).sample(MANY, generator()).chains
    assert draws.operation.shape == (20_000, 3, 3)
    running = draws.operation >= 0
    depths = running.sum(dim=2)
    assert (running == (torch.arange(3) < depths[..., None])).all()  # a chain ends once and for all
    total = 60_000
    for counts, limit in ((depths.flatten().bincount()[1:], 13.8), (draws.operation[running].bincount(), 26.1)):
        expected = counts.sum() / len(counts)  # chi-square below its value for one sample in a thousand
        assert len(counts) in (3, 9)
        assert ((counts - expected) ** 2 / expected).sum() < limit
    assert abs((draws.sign[running] == 1).float().mean() - 0.5) < 4 * 0.5 / total**0.5
    assert set(draws.sign.flatten().tolist()) == {-1, 1}
    strength = draws.strength.flatten().double().sort().values
    assert strength[0] >= 0.1
    assert strength[-1] < 3
    uniform = (torch.arange(len(strength)) + 0.5) / len(strength)
    assert ((strength - 0.1) / 2.9 - uniform).abs().max() < 1.95 / len(strength) ** 0.5  # Kolmogorov and Smirnov
    everything = AugMix(all_ops=True).sample(MANY, generator()).chains.operation
    assert set(everything.flatten().tolist()) == set(range(-1, 13))


def test_weights_and_shares_are_drawn_per_image():
    draws = AugMix(width=4).sample(MANY, generator())
    assert draws.weights.shape == (20_000, 4)
    torch.testing.assert_close(draws.weights.sum(dim=1), torch.ones(20_000))
    assert abs(draws.share.mean() - 0.5) < 0.01
    first = draws.share.double().sort().values
    assert (first - (torch.arange(20_000) + 0.5) / 20_000).abs().max() < 1.95 / 20_000**0.5
    assert abs(torch.corrcoef(torch.stack([draws.share, draws.weights[:, 0]]))[0, 1]) < 0.03
    peaked = AugMix(alpha=100.0).sample(MANY, generator())
    assert peaked.share.std() < 0.04
    assert peaked.weights.std() < 0.04


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_given_depth_is_kept(depth):
    operation = AugMix(depth=depth).sample(torch.Size([50, 3, 1, 1]), generator()).chains.operation
    assert operation.shape == (50, 3, depth)
    assert (operation >= 0).all()


def test_images_of_a_batch_differ_in_what_happens_to_them():
    same = images_of((1, 3, 16, 16)).expand(12, -1, -1, -1)
    changed = AugMix()(same, generator=generator()).flatten(1)
    assert (torch.cdist(changed, changed) > 1e-3).sum() == 12 * 11


def test_float_images_between_the_levels_are_chained_from_the_nearest():
    images = torch.full((1, 1, 4, 4), 100.4 / 255)
    still = ChainDraws(
        operation=torch.full((1, 1, 1), -1), strength=torch.ones(1, 1, 1), sign=torch.ones(1, 1, 1, dtype=torch.int64)
    )
    draws = MixDraws(chains=still, weights=torch.ones(1, 1), share=torch.ones(1))
    torch.testing.assert_close(AugMix(width=1).apply(images, draws), torch.full((1, 1, 4, 4), 100 / 255))
    torch.testing.assert_close(AugMix(width=1, quantize=False).apply(images, draws), images)


def test_the_published_settings():
    assert AugMix.cifar == AugMix(severity=3.0, width=3, depth=-1, alpha=1.0, all_ops=False, quantize=True)
    assert AugMix.imagenet == AugMix(severity=1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"severity": 0.05}, r"severity must lie in \[0.1, 10\], got 0.05"),
        ({"severity": 11}, r"severity must lie in \[0.1, 10\], got 11"),
        ({"severity": float("nan")}, "severity must lie"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, or -1 for a random one of 1 to 3, got 0"),
        ({"depth": -2}, "got -2"),
        ({"alpha": 0.0}, "alpha must be more than 0, got 0.0"),
        ({"alpha": float("nan")}, "alpha must be more than 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AugMix(**settings)


def test_values_beyond_the_range_that_were_not_looked_for_become_black_or_white():
    levels = as_levels(torch.tensor([-0.05, 0.0, 1.0, 1.02, 2.6]), quantize=True)
    assert levels.tolist() == [0, 0, 255, 255, 255]
