import pytest
import torch
from robust_augs.loader import AugmentedLoader
from robust_augs.patch_gaussian import PatchGaussian
from torch.utils.data import DataLoader, TensorDataset

IMAGES = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(10)
AUGMENTATION = PatchGaussian(patch_size=4, sigma=0.3)


def loader_of(**settings):
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4)
    return AugmentedLoader(loader, AUGMENTATION, generator=torch.Generator().manual_seed(5), **settings)


def test_batches_are_augmented_with_the_generator():
    random = torch.Generator().manual_seed(5)
    batches = list(loader_of())
    assert len(batches) == len(loader_of()) == 3
    for (images, labels), start in zip(batches, (0, 4, 8), strict=True):
        assert torch.equal(images, AUGMENTATION(IMAGES[start : start + 4], generator=random))
        assert torch.equal(labels, LABELS[start : start + 4])


def test_splits_give_the_clean_images_then_independent_views_with_labels_repeated():
    images, labels = next(iter(loader_of(splits=3)))
    clean, first, second = images.chunk(3)
    assert torch.equal(clean, IMAGES[:4])
    assert torch.equal(labels, LABELS[:4].repeat(3))
    assert not torch.equal(first, second)
    assert (first != clean).any()


def test_what_scripts_look_at_is_the_loaders_own():
    loader = loader_of()
    assert loader.dataset is loader.loader.dataset
    assert loader.sampler is loader.loader.sampler
    with pytest.raises(AttributeError):
        _ = loader.nonsense


def test_mixup_is_switched_off_where_it_is_done():
    loader = loader_of()
    loader.loader.mixup_enabled = True
    assert loader.mixup_enabled is True
    loader.mixup_enabled = False  # as timm's training script does at --mixup-off-epoch
    assert loader.loader.mixup_enabled is False


def test_splits_below_one_are_refused():
    with pytest.raises(ValueError, match="splits must be at least 1"):
        loader_of(splits=0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves image files open
def test_timms_loader_gives_augmented_images_in_the_range(tmp_path):
    data = pytest.importorskip("timm.data")
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (40, 40), (90, 120, 200)).save(tmp_path / name / f"{number}.png")
    plain = data.create_loader(
        data.create_dataset("", root=str(tmp_path)),
        input_size=(3, 32, 32),
        batch_size=3,
        is_training=True,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        num_workers=0,
        device=torch.device("cpu"),
        persistent_workers=False,
        color_jitter=0.0,
    )
    loader = AugmentedLoader(plain, AUGMENTATION, splits=2, generator=torch.Generator().manual_seed(0))
    images, labels = next(iter(loader))
    assert images.shape == (6, 3, 32, 32)
    assert labels.shape == (6,)
    torch.testing.assert_close(images[:3].amax(dim=(2, 3)), torch.tensor([90.0, 120.0, 200.0]).expand(3, 3) / 255)
    assert (images[3:] != images[:3]).any(dim=1).flatten(1).sum(dim=1).tolist() == pytest.approx([16] * 3, abs=12)
    assert loader.mixup_enabled is False
