import json

import pytest
import torch
from PIL import Image
from robust_augs.style import StyleDraws, StyleTransfer
from robust_augs.style_bank import StyleBank
from robust_augs.stylise_folder import stylise_folder
from robust_augs.stylised_folder import StylisedFolder
from torch import nn
from torchvision.transforms import CenterCrop
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

NAMES = ["ant/a.JPEG", "ant/b.JPEG", "bee/a.JPEG", "bee/b.JPEG", "bee/c.JPEG"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def transfer_of(alpha=1.0, paintings=6, weight=1.0):
    conv = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.eye_(conv.weight.data.view(3, 3)).mul_(weight)
    bank = StyleBank.encode(conv, [torch.rand(paintings, 3, 8, 8, generator=generator(1))])
    return StyleTransfer(conv, nn.Identity(), alpha=alpha, styles=bank)


@pytest.fixture
def clean(tmp_path):
    for i, name in enumerate(NAMES):
        path = tmp_path / "clean" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (3, 9 + i, 12), generator=generator(i), dtype=torch.uint8)
        to_pil_image(pixels).save(path)
    return tmp_path / "clean"


def decoded(path):
    return pil_to_tensor(Image.open(path))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_copy_is_its_image_in_one_style_of_the_bank(clean, tmp_path):
    transfer = transfer_of()
    assert stylise_folder(transfer, clean, tmp_path / "out") == 5
    paintings = []
    for name in NAMES:
        copy = decoded((tmp_path / "out" / name).with_suffix(".png"))
        image = decoded(clean / name)[None]
        fitting = [
            k for k in range(6) if torch.equal(transfer.apply(image, StyleDraws(style=torch.tensor([k])))[0], copy)
        ]
        assert len(fitting) == 1
        paintings += fitting
    assert len(set(paintings)) > 1
    stylise_folder(transfer, clean, tmp_path / "other", seed=1)
    assert any(
        contents(tmp_path / "other")[name] != copy
        for name, copy in contents(tmp_path / "out").items()
        if ".png" in name
    )


def test_the_copies_make_a_stylised_folder(clean, tmp_path):
    stylise_folder(transfer_of(), clean, tmp_path / "out")
    data = StylisedFolder(clean, tmp_path / "out")
    assert len(data) == 10
    for i in range(5):
        assert data[i][0].size == data[5 + i][0].size


def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(clean, tmp_path):
    stylise_folder(transfer_of(), clean, tmp_path / "whole")

    class Interruption(Exception):
        pass

    def interrupt(done, total):
        if done == 2:
            raise Interruption

    with pytest.raises(Interruption):
        stylise_folder(transfer_of(), clean, tmp_path / "parts", progress=interrupt)
    assert len(list((tmp_path / "parts").rglob("*.png"))) == 2
    assert stylise_folder(transfer_of(), clean, tmp_path / "parts") == 3
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert stylise_folder(transfer_of(), clean, tmp_path / "parts") == 0


def test_shards_make_the_same_bytes(clean, tmp_path):
    stylise_folder(transfer_of(), clean, tmp_path / "whole")
    counts = [stylise_folder(transfer_of(), clean, tmp_path / "shards", shard=(i, 3)) for i in (2, 0, 1)]
    assert counts == [1, 2, 2]
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")


def test_a_copy_is_written_whole_or_not_at_all(clean, tmp_path, monkeypatch):
    def fail(path, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        stylise_folder(transfer_of(), clean, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_progress_counts_all_images(clean, tmp_path):
    calls = []
    stylise_folder(transfer_of(), clean, tmp_path / "out", shard=(0, 2))
    stylise_folder(transfer_of(), clean, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert calls == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize("as_tensor", [False, True])
def test_images_are_transformed_first(clean, tmp_path, as_tensor):
    def transform(image):
        cropped = CenterCrop(6)(image)
        return pil_to_tensor(cropped).float() / 255 if as_tensor else cropped

    stylise_folder(transfer_of(), clean, tmp_path / "out", transform=transform)
    assert decoded(tmp_path / "out/ant/a.png").shape == (3, 6, 6)


def test_alpha_0_writes_the_images_themselves(clean, tmp_path):
    stylise_folder(transfer_of(alpha=0.0), clean, tmp_path / "out")
    for name in NAMES:
        copy = decoded((tmp_path / "out" / name).with_suffix(".png"))
        assert torch.equal(copy, decoded(clean / name))


@pytest.mark.parametrize(
    ("transfer", "seed", "message"),
    [
        (transfer_of(alpha=0.5), 0, "alpha was 1.0, is 0.5"),
        (transfer_of(), 1, "seed was 0, is 1"),
        (transfer_of(weight=2.0), 0, "content was .*, is "),
        (transfer_of(paintings=5), 0, "content was .*, is "),
    ],
    ids=["alpha", "seed", "encoder", "paintings"],
)
def test_a_folder_of_other_settings_is_refused(clean, tmp_path, transfer, seed, message):
    stylise_folder(transfer_of(), clean, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(
        ValueError, match=f"was written with other settings .{message}.*: use the same, or another folder"
    ):
        stylise_folder(transfer, clean, tmp_path / "out", seed=seed)
    assert contents(tmp_path / "out") == before
    assert set(json.loads(before["stylise_folder.json"])) == {"seed", "images", "names", "alpha", "content"}


@pytest.mark.parametrize("inside", ["", "copies"])
def test_a_target_in_the_clean_folder_is_refused(clean, inside):
    before = contents(clean)
    with pytest.raises(ValueError, match="the target must lie outside the source"):
        stylise_folder(transfer_of(), clean, clean / inside)
    assert contents(clean) == before


def test_a_data_set_that_grew_is_refused(clean, tmp_path):
    stylise_folder(transfer_of(), clean, tmp_path / "out")
    Image.new("RGB", (8, 8)).save(clean / "ant/aa.JPEG")
    with pytest.raises(ValueError, match="images was 5, is 6"):
        stylise_folder(transfer_of(), clean, tmp_path / "out")


def test_a_data_set_of_as_many_images_is_not_taken_for_the_same(clean, tmp_path):
    stylise_folder(transfer_of(), clean, tmp_path / "out")
    (clean / "ant/a.JPEG").rename(clean / "ant/c.JPEG")
    with pytest.raises(ValueError, match=r"settings .names was .*, is "):
        stylise_folder(transfer_of(), clean, tmp_path / "out")


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (
            lambda image: 2 * (pil_to_tensor(image) / 255) - 1,
            ValueError,
            r"lie in \[0, 1\], .* before the mean/std step",
        ),
        (lambda image: pil_to_tensor(image).long(), TypeError, r"floats in \[0, 1\] or uint8, got torch.int64"),
        (lambda image: pil_to_tensor(image)[None], ValueError, r"shape \(N, C, H, W\), got \(1, 1, 3, 9, 12\)"),
    ],
    ids=["normalised", "int64", "a batch"],
)
def test_what_transform_returns_must_be_an_image(clean, tmp_path, transform, error, message):
    with pytest.raises(error, match=message):
        stylise_folder(transfer_of(), clean, tmp_path / "out", transform=transform)
    assert not list((tmp_path / "out").rglob("*.png"))


def test_bad_settings_are_refused(clean, tmp_path):
    with pytest.raises(ValueError, match=r"transfer has no paintings: StyleTransfer\(..., styles="):
        stylise_folder(StyleTransfer(nn.Identity(), nn.Identity()), clean, tmp_path / "out")
    with pytest.raises(ValueError, match=r"shard must be \(index, count\) with 0 <= index < count, got \(3, 3\)"):
        stylise_folder(transfer_of(), clean, tmp_path / "out", shard=(3, 3))
    with pytest.raises(FileNotFoundError, match=r"no folder of images at .*none"):
        stylise_folder(transfer_of(), tmp_path / "none", tmp_path / "out")
