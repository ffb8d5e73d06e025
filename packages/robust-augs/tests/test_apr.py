import math

import pytest
import torch
from robust_augs import APRPair
from robust_augs.apr import PairDraws


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
