import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from robust_augs.noise import GaussianNoise
from robust_augs.patch_gaussian import PatchGaussian
from robust_augs.per_image import PerImage
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

AUGMENTATION = PatchGaussian(patch_size=4, sigma=0.3)
LEVELS = torch.randint(256, (3, 16, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded(transform, *inputs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return transform(*inputs)


def expected():
    return seeded(AUGMENTATION, LEVELS[None])[0]


def test_each_kind_of_image_comes_back_as_it_came():
    plain = seeded(PerImage(AUGMENTATION), LEVELS)
    assert type(plain) is torch.Tensor
    assert torch.equal(plain, expected())
    wrapped = seeded(PerImage(AUGMENTATION), tv_tensors.Image(LEVELS))
    assert isinstance(wrapped, tv_tensors.Image)
    assert torch.equal(wrapped, expected())
    picture = seeded(PerImage(AUGMENTATION), Image.fromarray(LEVELS.permute(1, 2, 0).numpy()))
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), expected().permute(1, 2, 0).numpy())


def test_labels_beside_the_image_pass():
    mask = tv_tensors.Mask(torch.ones(16, 12, dtype=torch.uint8))
    image, label, also = seeded(PerImage(AUGMENTATION), tv_tensors.Image(LEVELS), torch.tensor(7), mask)
    assert torch.equal(image, expected())
    assert label == 7
    assert also is mask


def test_it_stands_in_a_compose_and_says_what_it_does():
    pipeline = v2.Compose([v2.ToImage(), PerImage(AUGMENTATION), v2.ToDtype(torch.float32, scale=True)])
    result = seeded(pipeline, Image.fromarray(LEVELS.permute(1, 2, 0).numpy()))
    torch.testing.assert_close(result, expected().float() / 255)
    assert repr(AUGMENTATION) in repr(pipeline)


def test_normalised_images_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*before the mean/std step"):
        PerImage(AUGMENTATION)(torch.randn(3, 8, 8))


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK"])
def test_pictures_whose_numbers_are_no_grey_levels_are_refused(mode):
    picture = Image.fromarray(LEVELS.permute(1, 2, 0).numpy()).convert(mode)
    with pytest.raises(ValueError, match=rf"got '{mode}': image.convert\('RGB'\) first"):
        PerImage(AUGMENTATION)(picture)


class Grey(Dataset):
    """Eight equal images."""

    def __init__(self):
        self.transform = PerImage(GaussianNoise(share=1.0))

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.transform(torch.full((3, 8, 8), 0.5)), index


@pytest.mark.parametrize("workers", [0, 2])
def test_in_workers_every_image_and_epoch_has_its_own_draws_and_the_seed_repeats_them(workers):
    def epoch(loader):
        return torch.cat([images for images, _ in loader])

    def epochs():
        loader = DataLoader(Grey(), batch_size=2, num_workers=workers, generator=torch.Generator().manual_seed(1))
        return seeded(lambda: torch.cat([epoch(loader), epoch(loader)]))

    images = epochs()
    assert len(torch.unique(images.flatten(1), dim=0)) == 16
    assert torch.equal(images, epochs())


def test_it_can_be_sent_to_workers_that_are_spawned():
    transform = pickle.loads(pickle.dumps(PerImage(AUGMENTATION)))
    assert torch.equal(seeded(transform, LEVELS), expected())
