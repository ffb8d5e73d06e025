import numpy as np
import pytest
import torch
from PIL import Image
from robust_augs.style_bank import StyleBank
from torch import nn


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def write_painting(path, width, height, seed):
    levels = torch.randint(256, (height, width, 3), generator=generator(seed), dtype=torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.numpy()).save(path)
    return levels


def test_styles_are_the_statistics_of_the_features():
    batches = [torch.rand(n, 3, 6, side, generator=generator(n), dtype=torch.float64) for n, side in ((2, 5), (3, 9))]
    bank = StyleBank.encode(lambda images: 2 * images, batches)
    assert len(bank) == 5
    assert repr(bank) == "StyleBank(5 styles of 3 channels)"
    for painting, mean, std in zip([p for batch in batches for p in batch], bank.mean, bank.std, strict=True):
        features = 2 * painting.numpy().reshape(3, -1)
        np.testing.assert_allclose(mean.numpy(), features.mean(1), rtol=1e-13)
        np.testing.assert_allclose(std.numpy(), np.sqrt(features.var(1, ddof=1) + 1e-5), rtol=1e-13)


def test_the_encoder_is_left_as_it_was():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    bank = StyleBank.encode(encoder, [torch.rand(4, 3, 5, 5)])
    assert not bank.mean.requires_grad
    assert all(module.training for module in encoder.modules())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_a_bank_comes_back_from_its_file(tmp_path):
    bank = StyleBank.encode(nn.Identity(), [torch.rand(3, 4, 5, 5, generator=generator())])
    bank.save(tmp_path / "styles.pt")
    loaded = StyleBank.load(tmp_path / "styles.pt")
    assert torch.equal(loaded.mean, bank.mean)
    assert torch.equal(loaded.std, bank.std)
    assert [path.name for path in tmp_path.iterdir()] == ["styles.pt"]


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    square = write_painting(tmp_path / "b.png", 8, 8, seed=0)
    wide = write_painting(tmp_path / "a" / "z.png", 12, 8, seed=1)
    (tmp_path / "notes.txt").write_text("no painting")
    bank = StyleBank.from_folder(nn.Identity(), tmp_path, side=8)
    for i, middle in enumerate([wide[:, 2:10], square]):  # of 8 x 8 pixels, so not resampled
        torch.testing.assert_close(bank.mean[i], middle.float().mean((0, 1)) / 255, rtol=1e-5, atol=0)


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    paintings, elsewhere = tmp_path / "paintings", tmp_path / "elsewhere"
    levels = [write_painting(folder / "a.png", 8, 8, seed=i) for i, folder in enumerate((elsewhere, paintings / "z"))]
    (paintings / "link").symlink_to(elsewhere, target_is_directory=True)
    (paintings / "z" / "up").symlink_to(paintings, target_is_directory=True)
    bank = StyleBank.from_folder(nn.Identity(), paintings, side=8)
    expected = torch.stack([painting.float().mean((0, 1)) / 255 for painting in levels])
    torch.testing.assert_close(bank.mean, expected, rtol=1e-5, atol=0)


def test_paintings_are_brought_to_one_side(tmp_path):
    write_painting(tmp_path / "a.png", 30, 20, seed=0)
    write_painting(tmp_path / "b.png", 5, 9, seed=1)
    shapes = []
    StyleBank.from_folder(lambda images: shapes.append(images.shape) or images, tmp_path, side=7)
    assert shapes == [(1, 3, 7, 7), (1, 3, 7, 7)]


def test_missing_paintings_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder of paintings at .*paintings"):
        StyleBank.from_folder(nn.Identity(), tmp_path / "paintings")
    with pytest.raises(FileNotFoundError, match=r"no image in .*: expected files that end in .jpg"):
        StyleBank.from_folder(nn.Identity(), tmp_path)
    with pytest.raises(ValueError, match="at least one painting"):
        StyleBank.encode(nn.Identity(), [])


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no bank of styles at .*none.pt: StyleBank.from_folder"):
        StyleBank.load(tmp_path / "none.pt")
    torch.save({"mean": torch.zeros(1, 1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not a bank of styles: it must hold the tensors mean and std"):
        StyleBank.load(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (torch.zeros(2, 3), torch.ones(2, 4), r"got \(2, 3\) and \(2, 4\)"),
        (torch.zeros(0, 3), torch.ones(0, 3), r"got \(0, 3\)"),
        (torch.zeros(3), torch.ones(3), r"shape \(styles, channels\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3), "std above 0"),
        (torch.full((2, 3), torch.nan), torch.ones(2, 3), "finite"),
    ],
)
def test_what_is_no_bank_is_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        StyleBank(mean=mean, std=std)
