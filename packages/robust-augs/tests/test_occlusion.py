import pytest
import torch
from robust_augs.occlusion import PatchOcclusion


@pytest.mark.parametrize(("side", "share", "number"), [(224, 0.1, 20), (128, 0.1, 6), (32, 0.01, 1), (32, 0.0, 0)])
def test_every_image_hides_as_many_patches(side, share, number):
    shape = torch.Size([3, 1, side, side])
    draws = PatchOcclusion(share=share).sample(shape, torch.Generator().manual_seed(0))
    assert draws.hidden.flatten(1).sum(dim=1).tolist() == [number] * 3


def test_patches_are_replaced_whole_by_uniform_noise_and_the_rest_stays():
    images = torch.full((40, 3, 24, 16), 0.5)
    augmentation = PatchOcclusion(patch_size=8, share=0.5)
    draws = augmentation.sample(images.shape, torch.Generator().manual_seed(0))
    result = augmentation.apply(images, draws)
    for index in range(40):
        for row in range(3):
            for column in range(2):
                patch = (index, slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
                source = draws.noise if draws.hidden[index, row, column] else images
                assert torch.equal(result[patch], source[patch])
    noise = result[result != 0.5]
    assert abs(noise.mean() - 0.5) < 0.01
    assert abs(noise.std() - 12**-0.5) < 0.01


def test_every_patch_is_as_likely():
    augmentation = PatchOcclusion(patch_size=2, share=0.25)
    draws = augmentation.sample(torch.Size([8000, 1, 4, 8]), torch.Generator().manual_seed(0))
    assert (draws.hidden.float().mean(dim=0) - 0.25).abs().max() < 0.02


def test_images_that_do_not_divide_and_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"patches of 16 pixels must divide both sides of the images, got 32 x 40"):
        PatchOcclusion()(torch.rand(1, 3, 32, 40))
    with pytest.raises(ValueError, match="share must lie in"):
        PatchOcclusion(share=1.5)
    with pytest.raises(ValueError, match="patch_size must be at least 1"):
        PatchOcclusion(patch_size=0)
