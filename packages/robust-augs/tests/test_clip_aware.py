import pytest
import torch
from robust_augs.clip_aware import add_clip_aware


def batch(seed=0, shape=(5, 3, 7, 6), dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    return tuple(draw(shape, generator=random, dtype=dtype) for draw in (torch.rand, torch.randn))


def distance(result, images):
    return (result - images).flatten(1).norm(dim=1)


def bisected(images, noise, eps):
    """The same point by bisection over t, image by image."""
    results = []
    for image, direction in zip(images, noise, strict=True):
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            near = ((image + middle * direction).clamp(0, 1) - image).norm() < eps
            low, high = (middle, high) if near else (low, middle)
        results.append((image + low * direction).clamp(0, 1))
    return torch.stack(results)


@pytest.mark.parametrize("eps", [0.01, 1.0, 4.0, 6.0])
def test_the_distance_is_eps_and_the_point_that_of_bisection(eps):
    images, noise = batch()
    result = add_clip_aware(images, noise, eps)
    torch.testing.assert_close(distance(result, images), torch.full((5,), eps, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(result, bisected(images, noise, eps), rtol=1e-9, atol=1e-9)


def test_many_pixels_in_single_precision():
    images, noise = batch(shape=(2, 3, 160, 160), dtype=torch.float32)
    for eps in (10.0, 100.0, 150.0):
        torch.testing.assert_close(
            distance(add_clip_aware(images, noise, eps), images), torch.full((2,), eps), rtol=2e-5, atol=0
        )


def test_what_cannot_be_moved_so_far_is_moved_as_far_as_it_can():
    images, noise = batch()
    noise[0] = noise[0].abs()
    images[1, :, 3:], noise[1, :, 3:] = 1.0, 1.0  # no room in the direction of the noise
    noise[2, 0] = 0
    result = add_clip_aware(images, noise, 9.0)
    limit = torch.where(noise > 0, 1.0, torch.where(noise < 0, 0.0, images))
    assert torch.equal(result, limit)


def test_no_noise_moves_nothing():
    images, noise = batch()
    result = add_clip_aware(images, torch.zeros_like(noise).requires_grad_(), 1.0)
    assert torch.equal(result, images)
    result.sum().backward()


def test_the_length_of_the_noise_does_not_matter():
    images, noise = batch()
    result = add_clip_aware(images, noise, 5.0)
    torch.testing.assert_close(add_clip_aware(images, 1e-3 * noise, 5.0), result, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("eps", [1.0, 2.0])
def test_gradients_are_right(eps):
    images, noise = batch(shape=(2, 1, 4, 4))
    assert 0 < ((add_clip_aware(images, noise, eps) % 1) == 0).sum() < 32  # some pixels are out of room, some are not
    assert torch.autograd.gradcheck(lambda d: add_clip_aware(images, d, eps), noise.requires_grad_(), atol=1e-6)


def test_gradients_stay_finite_where_all_pixels_are_out_of_room():
    images, noise = batch()
    result = add_clip_aware(images, noise.requires_grad_(), 100.0)
    result.sum().backward()
    assert torch.equal(noise.grad, torch.zeros_like(noise))
