"""ImageNet-C and Tiny ImageNet-C, from synthetic folders."""

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.benchmarks import Options, imagenet_c
from robust_bench.benchmarks.corruption_scores import CORRUPTIONS, EXTRA_CORRUPTIONS
from robust_bench.datasets.imagenet_classes import imagenet_wnids
from robust_bench.preprocess import Preprocess

ENTRIES = {entry.name: entry for entry in imagenet_c.ENTRIES}
WNIDS = imagenet_wnids()
GROUP = {
    **dict.fromkeys(CORRUPTIONS[:3], "noise"),
    **dict.fromkeys(CORRUPTIONS[3:7], "blur"),
    **dict.fromkeys(CORRUPTIONS[7:11], "weather"),
    **dict.fromkeys(CORRUPTIONS[11:], "digital"),
    **dict.fromkeys(EXTRA_CORRUPTIONS, "extra"),
}


def cell(path, wnids, side):
    """One JPEG of random pixels for all classes."""
    path.mkdir(parents=True)
    file = path.parent / f"{path.name}.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, quality=85)
    for wnid in wnids:
        (path / wnid).mkdir()
        (path / wnid / "ILSVRC2012_val_00000001.JPEG").symlink_to(file)
    return path


def grid(root, one, corruptions=CORRUPTIONS, *, grouped=False):
    """All corruptions and severities as links to one cell."""
    for corruption in corruptions:
        base = root / GROUP[corruption] / corruption if grouped else root / corruption
        base.mkdir(parents=True)
        for severity in range(1, 6):
            (base / str(severity)).symlink_to(one)
    return root


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return cell(tmp_path_factory.mktemp("cells") / "imagenet", WNIDS, 224)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return cell(tmp_path_factory.mktemp("cells") / "tiny", WNIDS[::5], 64)


def build(name, data, **options):
    return ENTRIES[name].build(Options(data=data, **options)).parts


@pytest.mark.parametrize("grouped", [False, True], ids=["flat", "grouped"])
def test_every_cell_is_a_part_with_its_corruption(one, tmp_path, grouped):
    grid(tmp_path / "ImageNet-C", one, grouped=grouped)
    parts = build("imagenet-c", tmp_path)
    assert [part.name for part in parts] == [
        f"imagenet-c/{corruption}-{severity}" for corruption in CORRUPTIONS for severity in range(1, 6)
    ]
    part = parts[CORRUPTIONS.index("fog") * 5 + 2]
    (condition,) = part.conditions
    assert condition.settings == {"kind": "corruption", "corruption": "fog", "severity": 3, "source": "files"}
    assert (part.label, part.num_classes, part.answer) == ("imagenet-c", 1000, None)
    where = tmp_path / "ImageNet-C" / ("weather/fog/3" if grouped else "fog/3")
    assert part.data.listing.file(999) == where / WNIDS[999] / "ILSVRC2012_val_00000001.JPEG"
    assert part.data[999][1] == 999


def test_files_are_not_resized_a_second_time(one, tmp_path):
    grid(tmp_path / "imagenet-c", one)
    preprocess = Preprocess(size=224, crop_share=0.875)  # would resize to 256 and cut 224
    part = build("imagenet-c", tmp_path, preprocess=preprocess)[0]
    pixels = np.array(Image.open(one.parent / "imagenet.jpg"))
    assert torch.equal(part.data[5][0], torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert part.settings["preprocessing"] == {"stored": 224, "size": 224, "steps": "none"}


def test_a_model_of_another_size_gets_one_resize_and_the_result_tells(one, tmp_path):
    grid(tmp_path / "imagenet-c", one)
    for options in ({"size": 96}, {"preprocess": Preprocess(size=96)}):
        part = build("imagenet-c", tmp_path, **options)[0]
        assert part.data[0][0].shape == (3, 96, 96)
        assert part.settings["preprocessing"]["steps"] == "Resize(96 from 224, bilinear, antialiased)"


def test_files_of_another_size_are_refused_by_name(tmp_path):
    small = cell(tmp_path / "small", WNIDS, 32)
    grid(tmp_path / "imagenet-c", small)
    part = build("imagenet-c", tmp_path)[0]
    with pytest.raises(ValueError, match=r"00000001\.JPEG: expected 224 x 224 pixels, got 32 x 32"):
        part.data[0]


def test_a_missing_cell_is_named_with_the_layout(one, tmp_path):
    root = grid(tmp_path / "imagenet-c", one)
    (root / "fog" / "4").unlink()
    with pytest.raises(FileNotFoundError, match=r"fog at severity 4 is missing .*Expected DIR/imagenet-c/<corruption>"):
        build("imagenet-c", tmp_path)


def test_a_missing_corruption_is_named_with_the_layout(one, tmp_path):
    grid(tmp_path / "imagenet-c", one, CORRUPTIONS[:-1])
    with pytest.raises(FileNotFoundError, match=r"jpeg_compression at severity 1 is missing .*zenodo"):
        build("imagenet-c", tmp_path)


def test_a_cell_that_lacks_a_class_is_named(one, tmp_path):
    root = grid(tmp_path / "imagenet-c", one)
    (root / "fog" / "4").unlink()
    cell(root / "fog" / "4", WNIDS[1:], 8)
    with pytest.raises(ValueError, match=r"fog/4 does not hold the 1000 class folders .* n01440764 is missing"):
        build("imagenet-c", tmp_path)


def test_extra_corruptions_are_evaluated_where_they_are_whole(one, tmp_path):
    root = grid(tmp_path / "imagenet-c", one)
    grid(root, one, EXTRA_CORRUPTIONS[:1], grouped=True)
    parts = build("imagenet-c", tmp_path)
    assert [part.name for part in parts[75:]] == [f"imagenet-c/speckle_noise-{severity}" for severity in range(1, 6)]
    (root / "extra" / "speckle_noise" / "2").unlink()
    with pytest.raises(FileNotFoundError, match="speckle_noise at severity 2 is missing"):
        build("imagenet-c", tmp_path)


def test_clean_images_come_first_where_they_are(one, tmp_path):
    grid(tmp_path / "imagenet-c", one)
    (tmp_path / "imagenet-val").symlink_to(one)
    parts = build("imagenet-c", tmp_path)
    assert (len(parts), parts[0].name, parts[0].label) == (76, "imagenet-val", "imagenet-val")
    assert parts[0].data.filename(3) == parts[1].data.filename(3)  # the names by which relative mCE pairs them


def test_tiny_imagenet_has_200_classes_in_sorted_order(tiny, tmp_path):
    grid(tmp_path / "Tiny-ImageNet-C", tiny)
    parts = build("tiny-imagenet-c", tmp_path, preprocess=Preprocess(size=224))
    assert (len(parts), parts[0].name, parts[0].num_classes) == (75, "tiny-imagenet-c/gaussian_noise-1", 200)
    image, label = parts[0].data[199]
    assert (image.shape, label) == ((3, 64, 64), 199)  # the declared size of an ImageNet model does not count
    assert parts[0].data.filename(199).startswith(WNIDS[995])


def test_cells_of_tiny_imagenet_agree_on_their_classes(tiny, tmp_path):
    root = grid(tmp_path / "tiny-imagenet-c", tiny)
    (root / "fog" / "4").unlink()
    cell(root / "fog" / "4", [*WNIDS[5::5], WNIDS[1]], 8)
    with pytest.raises(ValueError, match=r"fog/4 holds 200 class .*; n01440764, n01443537 differ .*Expected DIR"):
        build("tiny-imagenet-c", tmp_path)


def test_the_two_sets_are_told_apart(one, tiny, tmp_path):
    large, small = grid(tmp_path / "a", one), grid(tmp_path / "b", tiny, grouped=True)
    fits = {name: (entry.fits(large), entry.fits(small), entry.fits(tmp_path)) for name, entry in ENTRIES.items()}
    assert fits == {"imagenet-c": (True, False, False), "tiny-imagenet-c": (False, True, False)}
