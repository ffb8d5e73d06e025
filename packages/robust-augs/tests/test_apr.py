import dataclasses
import math

import pytest
import torch
from robust_augs import APRPair
from robust_augs.apr import APRSingle, PairDraws
from robust_augs.chains import apply_chains
from robust_augs.operations import OPERATIONS


def draws_for(*partner):
    """Recombine every image, with the partners given."""
    return PairDraws(recombined=torch.ones(len(partner), dtype=torch.bool), partner=torch.tensor(partner))


def transform(size, inverse=False):
    """The matrix of the discrete Fourier transform, written out."""
    k = torch.arange(size, dtype=torch.float64)
    angle = (2 if inverse else -2) * math.pi * k[:, None] * k / size
    matrix = torch.complex(angle.cos(), angle.sin())
    return matrix / size if inverse else matrix


def fourier(images, inverse=False):
    """Transform over channels, rows and columns by three matrix products: independent of torch.fft."""
    c, h, w = (transform(size, inverse) for size in images.shape[1:])
    return torch.einsum("ai,bj,ck,nijk->nabc", c, h, w, images.to(torch.complex128))


@pytest.mark.parametrize("shape", [(3, 3, 6, 6), (3, 1, 5, 4), (3, 3, 4, 7), (3, 2, 1, 1)], ids=str)
def test_equals_the_definition_with_a_written_out_transform(shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    partner = [1, 2, 0]
    spectrum = fourier(images)
    expected = fourier(spectrum[partner].abs() * torch.exp(1j * spectrum.angle()), inverse=True).real
    torch.testing.assert_close(APRPair().apply(images, draws_for(*partner)), expected, rtol=1e-10, atol=1e-12)
    single = APRPair().apply(images.float(), draws_for(*partner))
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=2e-6)


def test_the_amplitude_is_the_partners_and_the_phase_is_kept():
    images = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result, old = fourier(APRPair().apply(images, draws_for(1, 0))), fourier(images)
    torch.testing.assert_close(result.abs(), old[[1, 0]].abs(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(result / result.abs(), old / old.abs(), rtol=0, atol=1e-8)


def test_an_image_that_is_its_own_partner_stays():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(APRPair().apply(images, draws_for(0, 1, 2, 3)), images, rtol=0, atol=1e-6)


def test_where_the_spectrum_is_zero_the_phase_counts_as_zero():
    black, grey = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.25)
    images = torch.cat([black, grey])
    torch.testing.assert_close(APRPair().apply(images, draws_for(1, 0)), torch.cat([grey, black]))


def test_values_may_leave_the_range_unless_clipped():
    random = torch.Generator().manual_seed(3)
    images = torch.rand(4, 3, 8, 8, generator=random).round()
    free = APRPair().apply(images, draws_for(1, 2, 3, 0))
    assert free.min() < 0
    assert free.max() > 1
    assert torch.equal(APRPair(clip=True).apply(images, draws_for(1, 2, 3, 0)), free.clamp(0, 1))


def test_images_that_are_not_drawn_stay_bit_for_bit():
    images = torch.rand(6, 3, 8, 8)
    draws = APRPair().sample(images.shape, torch.Generator().manual_seed(0))
    changed = APRPair().apply(images, draws)
    same = torch.tensor([torch.equal(a, b) for a, b in zip(changed, images, strict=True)])
    assert 0 < draws.recombined.sum() < 6
    assert same[~draws.recombined].all()
    assert not same[draws.recombined & (draws.partner != torch.arange(6))].any()


@pytest.mark.parametrize(("probability", "count"), [(0.0, 0), (1.0, 500)])
def test_probability_zero_and_one(probability, count):
    draws = APRPair(probability=probability).sample(torch.Size([500, 3, 1, 1]), torch.Generator().manual_seed(0))
    assert draws.recombined.sum() == count


def test_each_image_is_drawn_for_itself_or_the_whole_batch_at_once():
    random = torch.Generator().manual_seed(0)
    shape = torch.Size([10_000, 3, 1, 1])
    per_image = APRPair(probability=0.6).sample(shape, random)
    assert abs(per_image.recombined.float().mean() - 0.6) < 0.02  # four standard deviations
    assert torch.equal(per_image.partner.sort().values, torch.arange(10_000))  # a permutation
    batches = [APRPair.cifar.sample(torch.Size([3, 3, 1, 1]), random).recombined for _ in range(2_000)]
    assert all(len(set(batch.tolist())) == 1 for batch in batches)
    assert abs(sum(bool(batch[0]) for batch in batches) / 2_000 - 0.6) < 0.045


def test_the_published_settings():
    assert APRPair.cifar == APRPair(probability=0.6, per_batch=True, clip=False)
    assert APRPair.imagenet == APRPair(probability=0.5, per_batch=True, clip=False)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_probability_out_of_range_is_refused(probability):
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\]"):
        APRPair(probability=probability)


def single_draws(shape, **fixed):
    """Draws of `APRSingle`, all images recombined unless told otherwise."""
    draws = APRSingle().sample(torch.Size(shape), torch.Generator().manual_seed(0))
    return dataclasses.replace(draws, **{"recombined": torch.ones(shape[0], dtype=torch.bool)} | fixed)


@pytest.mark.parametrize("quantize", [True, False])
@pytest.mark.parametrize("shape", [(10, 3, 16, 12), (10, 1, 13, 20)], ids=str)
def test_single_recombines_two_views_of_one_image_by_the_definition(shape, quantize):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = single_draws(shape)
    once = apply_chains((images * 255).round().to(torch.uint8) if quantize else images * 255, draws.first, OPERATIONS)
    twice = apply_chains(once[:, 0], draws.second, OPERATIONS)[:, 0].double()
    first, second = fourier(once[:, 0].double()), fourier(twice)
    choice = draws.backwards.view(-1, 1, 1, 1)
    assert 0 < draws.backwards.sum() < 10
    amplitude, phase = torch.where(choice, second, first).abs(), torch.where(choice, first, second)
    direction = torch.where(phase.abs() < 1e-9, 1, phase / phase.abs())
    free = fourier(amplitude * direction, inverse=True).real
    result = APRSingle(quantize=quantize).apply(images, draws)
    torch.testing.assert_close(result, free.clamp(0, 255) / 255, rtol=0, atol=1e-9)
    if not quantize:
        return
    wrapped = APRSingle(wrap=True).apply(images, draws) * 255
    torch.testing.assert_close(wrapped, wrapped.round())
    certain = (free - free.round()).abs() > 1e-6  # elsewhere rounding decides which side of a whole number it is
    assert certain.float().mean() > 0.2
    cut = torch.tensor([int(value) % 256 for value in free[certain].tolist()], dtype=torch.float64)
    torch.testing.assert_close(wrapped[certain], cut)
    assert ((free < -1) | (free > 256))[certain].any()  # something did wrap


def test_single_stops_after_one_operation_where_it_is_drawn_so():
    images = torch.randint(256, (10, 3, 8, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    none = single_draws(images.shape, recombined=torch.zeros(10, dtype=torch.bool))
    expected = apply_chains(images, none.first, OPERATIONS)[:, 0]
    assert torch.equal(APRSingle().apply(images, none), expected)
    half = single_draws(images.shape, recombined=torch.arange(10) % 2 == 0)
    result, all_ten = APRSingle().apply(images, half), APRSingle().apply(images, single_draws(images.shape))
    assert torch.equal(result[1::2], expected[1::2])
    assert torch.equal(result[::2], all_ten[::2])


def test_single_draws_both_halves_per_image():
    draws = APRSingle().sample(torch.Size([10_000, 3, 1, 1]), torch.Generator().manual_seed(0))
    for flags in (draws.recombined, draws.backwards, draws.recombined ^ draws.backwards):
        assert abs(flags.float().mean() - 0.5) < 0.02  # four standard deviations
    for chains in (draws.first, draws.second):
        counts = chains.operation.flatten().bincount()
        assert len(counts) == 9
        assert ((counts - 10_000 / 9) ** 2 / (10_000 / 9)).sum() < 26.1  # chi-square, one in a thousand
    assert (draws.first.operation == draws.second.operation).float().mean() < 0.13
    assert draws.first.strength.max() < 3


def test_single_keeps_to_the_range_and_to_the_published_settings():
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)).round()
    for single in (APRSingle(), APRSingle(wrap=True), APRSingle(quantize=False)):
        result = single.apply(images, single_draws(images.shape))
        assert result.min() >= 0
        assert result.max() <= 1
    assert APRSingle.cifar == APRSingle.imagenet == APRSingle(severity=3.0, wrap=False, quantize=True)
    with pytest.raises(ValueError, match=r"severity must lie in \[0.1, 10\], got 0"):
        APRSingle(severity=0)


def test_pair_after_single_is_the_combination_of_the_paper():
    images = torch.rand(6, 3, 8, 8)
    random = torch.Generator().manual_seed(0)
    both = APRPair(clip=True)(APRSingle()(images, generator=random), generator=random)
    assert both.shape == images.shape
    assert not torch.equal(both, images)
