import numpy as np
import pytest
import torch
from PIL import Image
from robust_augs import APRSingle, AugMix, recipes
from torchvision import tv_tensors

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))
SMALL = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
MADE = {
    "cifar": (recipes.cifar, SMALL, 32),
    "cifar_augmix": (recipes.cifar_augmix, SMALL, 32),
    "cifar_apr": (recipes.cifar_apr, SMALL, 32),
    "imagenet": (lambda: recipes.imagenet(24), PICTURE, 24),
    "imagenet, jitter": (lambda: recipes.imagenet(24, color_jitter=0.4), PICTURE, 24),
    "imagenet_augmix": (lambda: recipes.imagenet_augmix(24), PICTURE, 24),
    "deit": (lambda: recipes.deit(24), PICTURE, 24),
}


@pytest.mark.parametrize(("make", "picture", "side"), MADE.values(), ids=MADE)
def test_pictures_become_floats_in_the_range_and_differ_from_draw_to_draw(make, picture, side):
    transform = make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.stack([transform(picture) for _ in range(12)])
        torch.manual_seed(0)
        assert torch.equal(transform(picture), images[0])
    assert images.shape == (12, 3, side, side)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert len(torch.unique(images.flatten(1), dim=0)) >= 10


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mixing_gives_probability_labels_that_say_how_much_of_whom(share):
    """Image k is grey level k everywhere: a mix's mean level is what its label expects."""
    images = (torch.arange(8) / 10).view(8, 1, 1, 1).expand(8, 3, 20, 20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixed, labels = recipes.mixup_cutmix(num_classes=10, cutmix_share=share)(images, torch.arange(8))
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(8))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), labels @ (torch.arange(10) / 10), rtol=0, atol=1e-5)
    values_per_image = [len(image.unique()) for image in mixed]
    assert max(values_per_image) == (2 if share else 1)  # CutMix pastes a box, MixUp blends


def test_the_published_order_and_settings():
    def steps(transform):
        return [getattr(step, "augmentation", type(step).__name__) for step in transform.transforms]

    floats = ["ToImage", "ToDtype"]
    assert steps(recipes.cifar()) == ["RandomCrop", "RandomHorizontalFlip", *floats]
    assert steps(recipes.cifar_augmix()) == ["RandomHorizontalFlip", "RandomCrop", *floats, AugMix.cifar]
    assert steps(recipes.cifar_apr()) == ["RandomCrop", APRSingle(), "RandomHorizontalFlip", *floats]
    assert steps(recipes.imagenet_augmix()) == ["RandomResizedCrop", "RandomHorizontalFlip", *floats, AugMix.imagenet]
    deit = recipes.deit()
    assert steps(deit)[2:] == ["RandAugment", *floats, "RandomErasing", "Lambda"]
    assert (deit.transforms[2].num_ops, deit.transforms[2].magnitude, deit.transforms[5].p) == (2, 9, 0.25)
    assert recipes.cifar().transforms[0].padding == [4, 4, 4, 4]
    mixup, cutmix = recipes.mixup_cutmix(num_classes=10).transforms
    assert (mixup.alpha, cutmix.alpha) == (0.8, 1.0)


def test_deit_passes_labels_and_keeps_the_kind_of_image():
    image, label = recipes.deit(24)(PICTURE, 7)
    assert isinstance(image, tv_tensors.Image)
    assert label == 7


@pytest.mark.parametrize("settings", [{"mixup": 0.0}, {"cutmix": -1.0}, {"cutmix_share": 1.1}], ids=str)
def test_settings_of_mixing_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="must"):
        recipes.mixup_cutmix(num_classes=10, **settings)
