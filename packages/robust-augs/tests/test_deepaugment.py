import copy
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from robust_augs.deepaugment import DeepAugment
from robust_augs.deepaugment.folders import read_image
from robust_augs.deepaugment.layers import residual_blocks
from robust_augs.deepaugment.streams import edits_in_force, stream
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Residual(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x):
        return x + 0.1 * self.second(self.first(x).relu())


class TinyEDSR(nn.Module):
    """Four times larger; its parts have other names than those of EDSR."""

    def __init__(self, blocks=4, features=8):
        super().__init__()
        self.shift = nn.Conv2d(3, 3, 1)
        self.entry = nn.Sequential(nn.Conv2d(3, features, 3, padding=1))
        self.trunk = nn.Sequential(
            *(Residual(features) for _ in range(blocks)), nn.Conv2d(features, features, 3, padding=1)
        )
        self.enlarge = nn.Sequential(nn.Conv2d(features, 48, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, images):
        features = self.entry(self.shift(images))
        return self.enlarge(self.trunk(features) + features)


class TinyCAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.LeakyReLU(), nn.Conv2d(16, 12, 5, 2, 2), nn.Tanh())
        self.decoder = nn.Sequential(
            nn.Conv2d(12, 16, 3, padding=1),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(16, 16, 2, 2),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(16, 16, 2, 2),
            nn.Conv2d(16, 3, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, images):
        return self.decoder(self.encoder(images))


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def edsr(probability=0.3, **settings):
    return DeepAugment.edsr(seeded(TinyEDSR), side=12, probability=probability, **settings)


def cae(probability=0.3, **settings):
    return DeepAugment.cae(seeded(TinyCAE), side=16, probability=probability, **settings)


BOTH = [pytest.param(edsr, id="EDSR"), pytest.param(cae, id="CAE")]


@pytest.fixture
def folder(tmp_path):
    """Ten images of several sizes in two classes, and two files that are none."""
    source = tmp_path / "source"
    random = generator()
    for i in range(10):
        path = source / f"class{i % 2}" / f"image{i}.{'png' if i % 3 else 'JPEG'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = torch.randint(256, (3, 14 + i, 30 - i), generator=random, dtype=torch.uint8)
        to_pil_image(image).save(path)
    (source / "labels.txt").write_text("two classes")
    (source / "class0" / "notes.txt").write_text("nothing to see")
    return source


def read(path):
    with Image.open(path) as file:
        return pil_to_tensor(file)


def written(target):
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.glob("*/*")}


def test_head_and_body_are_found_by_structure():
    editor = edsr().editor
    assert (editor.head, editor.body) == ("entry", "trunk")
    nested = seeded(lambda: nn.ModuleDict({"inner": TinyEDSR(), "other": nn.Sequential(Residual(4))}))
    editor = DeepAugment.edsr(nested).editor
    assert (editor.head, editor.body) == ("inner.entry", "inner.trunk")
    editor = DeepAugment.edsr(nested, head="inner.shift", body="inner.trunk").editor
    assert (editor.head, editor.body) == ("inner.shift", "inner.trunk")


def test_blocks_are_known_by_their_first_and_last_kernels_of_size_three():
    sizes = (1, 3, 3, 3, 1)
    block, attention = nn.Sequential(*(nn.Conv2d(4, 4, size) for size in sizes)), nn.Sequential(nn.Conv2d(4, 4, 3))
    assert residual_blocks(nn.ModuleList([block, attention, nn.ReLU()])) == [(block[1], block[3])]


def test_the_published_settings():
    augment = DeepAugment.edsr(TinyEDSR())
    assert (augment.side, augment.probability) == (128, 0.05)
    augment = DeepAugment.cae(TinyCAE())
    assert (augment.side, augment.probability, augment.editor.binarise) == (512, 0.05, True)


@pytest.mark.parametrize(
    ("network", "names", "message"),
    [
        (TinyCAE, {}, "no nn.Sequential of residual blocks .* in TinyCAE: name the module"),
        (lambda: TinyEDSR(blocks=1), {}, "'trunk' must have at least three layers, two of them .* got 2 and 1"),
        (TinyEDSR, {"body": "body"}, "TinyEDSR has no module 'body'; it has shift, entry, trunk, enlarge"),
        (TinyEDSR, {"body": "enlarge"}, "'enlarge' must have at least three layers"),
        (TinyEDSR, {"head": "nose"}, "TinyEDSR has no module 'nose'"),
        (lambda: nn.Sequential(*(Residual(3) for _ in range(3))), {}, "no module with a convolution is registered"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3)), {}, "remove its parametrisation"),
    ],
    ids=["no body", "shallow", "other body", "no blocks", "other head", "no head", "weight norm"],
)
def test_a_network_that_edsr_does_not_fit_is_refused(network, names, message):
    network = network() if not isinstance(network(), nn.Conv2d) else nn.Sequential(network())
    with pytest.raises(ValueError, match=message):
        DeepAugment.edsr(network, **names)


@pytest.mark.parametrize(
    ("network", "names", "message"),
    [
        (TinyEDSR, {}, "TinyEDSR has no module 'encoder'"),
        (TinyCAE, {"decoder": "encoder"}, "the decoder 'encoder' three, got 2 and 2"),
        (TinyCAE, {"encoder": "encoder.1"}, "'encoder.1' must have a convolution .* got 0 and 5"),
    ],
    ids=["no encoder", "shallow", "no convolution"],
)
def test_a_network_that_cae_does_not_fit_is_refused(network, names, message):
    with pytest.raises(ValueError, match=message):
        DeepAugment.cae(network(), **names)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\], got 2"):
        edsr(probability=2)
    with pytest.raises(ValueError, match="side must be at least 1 pixel, got 0"):
        DeepAugment.cae(TinyCAE(), side=0)


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_distorted_images_have_the_size_of_the_output_and_the_dtype_of_the_input(make, dtype):
    levels = torch.randint(256, (2, 3, 16, 24), generator=generator(), dtype=torch.uint8)
    images = levels if dtype == torch.uint8 else (levels / 255).to(dtype)
    before = images.clone()
    for count in (1, 2):
        distorted = make().distort(images[:count], generator=generator(1))
        assert distorted.shape == (count, 3, *((64, 96) if make is edsr else (16, 24)))
        assert distorted.dtype == dtype
        assert distorted.min() >= 0
        assert distorted.max() <= (255 if dtype == torch.uint8 else 1)
    assert torch.equal(images, before)


@pytest.mark.parametrize("make", BOTH)
def test_the_generator_alone_decides(make):
    images = torch.rand(2, 3, 16, 16, generator=generator())
    augment, before = make(), torch.get_rng_state()
    first = augment.distort(images, generator=generator(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(make().distort(images, generator=generator(1)), first)
    assert not torch.equal(augment.distort(images, generator=generator(2)), first)
    assert not first.requires_grad


@pytest.mark.parametrize("make", BOTH)
def test_the_network_stays_as_it_is_also_after_an_error(make, folder, tmp_path):
    augment = make()
    network = augment.editor.network.train()
    before = copy.deepcopy(network.state_dict())
    for seed in range(20):
        augment.distort(torch.rand(1, 3, 16, 16), generator=generator(seed))
    augment.write(folder, tmp_path / "target")
    with pytest.raises(RuntimeError):
        augment.distort(torch.rand(1, 2, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.state_dict().keys() == before.keys()
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_an_overflow_in_the_network_gives_black_and_not_noise():
    network = seeded(TinyEDSR)
    with torch.no_grad():
        network.enlarge[0].bias.fill_(float("nan"))
    images = torch.rand(1, 3, 4, 4, generator=generator())
    assert torch.equal(DeepAugment.edsr(network).distort(images, generator=generator()), torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("make", BOTH)
def test_write_makes_the_same_files_distorted_and_of_the_networks_size(make, folder, tmp_path):
    target = tmp_path / "target"
    assert make().write(folder, str(target)) == 10
    files = written(target)
    assert sorted(files) == sorted(p.relative_to(folder).as_posix() for p in folder.glob("*/*") if p.suffix != ".txt")
    for name, content in files.items():
        assert content[:4] == b"\x89PNG" if name.endswith("png") else content[:2] == b"\xff\xd8"
        clean, distorted = read(folder / name), read(target / name)
        (height, width), short = clean.shape[1:], min(clean.shape[1:])
        side, times = (12, 4) if make is edsr else (16, 1)
        expected = tuple(times * int(side * length / short) for length in (height, width))
        if make is cae:  # halved twice with rounding up, and doubled twice
            expected = tuple(4 * -(-length // 4) for length in expected)
        assert distorted.shape == (3, *expected)


def test_a_png_holds_what_the_network_makes_of_the_resized_file(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "class").mkdir(parents=True)
    image = torch.randint(256, (3, 12, 15), generator=generator(), dtype=torch.uint8)
    to_pil_image(image).save(source / "class" / "image.png")
    augment = edsr()
    augment.write(source, target, seed=3)
    edited = augment.editor.edit(stream(3, 0, "weights"))
    with torch.no_grad():
        expected = augment.editor.distort(edited, image.unsqueeze(0) / 255, stream(3, 0, "activations"))[0]
    levels = (expected.clamp(0, 1) * 255).round().to(torch.uint8)
    assert torch.equal(read(target / "class" / "image.png"), levels)


@pytest.mark.parametrize("make", BOTH)
def test_a_resumed_run_and_shared_work_write_what_one_run_does(make, folder, tmp_path):
    whole, resumed, shared, other = (tmp_path / name for name in ("whole", "resumed", "shared", "other"))
    make().write(folder, whole, seed=1)

    def breaks_off(done, total):
        assert total == 10
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().write(folder, resumed, seed=1, progress=breaks_off)
    assert len(written(resumed)) == 6
    (resumed / "class0" / "image2.png").unlink()
    assert make().write(folder, resumed, seed=1) == 5
    assert make().write(folder, resumed, seed=1) == 0
    assert written(resumed) == written(whole)

    assert [make().write(folder, shared, seed=1, shard=(part, 3)) for part in (2, 0, 1)] == [4, 3, 3]
    assert written(shared) == written(whole)

    make().write(folder, other, seed=2)
    assert written(other).keys() == written(whole).keys()
    assert all(written(other)[name] != content for name, content in written(whole).items())


def test_an_interrupted_file_is_not_taken_for_finished(folder, tmp_path, monkeypatch):
    target, real = tmp_path / "target", Path.write_bytes

    def half(path, content):
        if path.parent == target:  # the record
            return real(path, content)
        real(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        edsr().write(folder, target)
    monkeypatch.undo()
    assert written(target) == {}
    assert edsr().write(folder, target) == 10
    edsr().write(folder, tmp_path / "whole")
    assert written(target) == written(tmp_path / "whole")


def test_progress_counts_all_images_of_the_part(folder, tmp_path):
    seen = []
    for _ in range(2):
        edsr().write(folder, tmp_path / "target", shard=(1, 2), progress=lambda *counts: seen.append(counts))
    assert seen == 2 * [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_weights_are_edited_with_the_probability_and_stay_in_force_until_then():
    for probability, expected in ((0.0, [0] * 6), (1.0, [0, 1, 2, 3, 4, 5])):
        assert edits_in_force(6, 0, probability) == expected
    for seed in range(5):
        latest = edits_in_force(20_000, seed, 0.05)
        assert all(b in (a, i) for i, (a, b) in enumerate(pairwise(latest), start=1))
        assert abs(len(set(latest)) / 20_000 - 0.05) < 0.008  # five standard deviations
        # What is in force for an image does not depend on how many come after it.
        for count in (1, 7, 16, 100, 1025):
            assert edits_in_force(count, seed, 0.05) == latest[:count]


def test_every_seed_image_and_purpose_has_numbers_of_its_own():
    keys = [(seed, index, purpose) for seed in (0, 1) for index in (0, 1, 10) for purpose in ("weights", "activations")]
    numbers = [float(torch.rand((), generator=stream(*key))) for key in keys]
    assert len(set(numbers)) == len(keys)
    assert numbers == [float(torch.rand((), generator=stream(*key))) for key in keys]


def test_write_edits_the_weights_only_where_it_should(folder, tmp_path, monkeypatch):
    augment = edsr(probability=0.4)
    edits = []
    real = type(augment.editor).edit
    monkeypatch.setattr(type(augment.editor), "edit", lambda self, random: edits.append(1) or real(self, random))
    augment.write(folder, tmp_path / "target", seed=5)
    assert 1 < len(edits) == len(set(edits_in_force(10, 5, 0.4))) < 10


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "CMYK", "P"])
def test_grey_transparent_palette_cmyk_and_16_bit_files_are_read_as_colour(mode, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "class").mkdir(parents=True)
    levels = torch.randint(256, (20, 20), generator=generator(), dtype=torch.uint8)
    colours = Image.fromarray(levels.numpy()).convert("RGB")
    file = source / "class" / ("image.jpg" if mode == "CMYK" else "image.png")
    if mode == "I;16":
        Image.fromarray((levels.int() * 257).to(torch.uint16).numpy()).save(file)
    else:
        colours.convert(mode).save(file)
    assert cae().write(source, target) == 1
    image = read_image(file, 20)
    assert image.shape == (1, 3, 20, 20)
    if mode != "CMYK":
        expected = pil_to_tensor((colours if mode == "I;16" else colours.convert(mode)).convert("RGB"))
        assert torch.equal(image[0], expected / 255)
    assert read(target / "class" / file.name).shape == (3, 16, 16)


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\x89PNG\r\n\x1a\nand no more"], ids=str)
def test_a_file_that_is_no_image_stops_the_run_with_its_name(content, folder, tmp_path):
    (folder / "class1" / "broken.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*broken.jpg as a JPEG or PNG image: .* Mend or replace it"):
        edsr().write(folder, tmp_path / "target")
    assert len(written(tmp_path / "target")) == 5
    to_pil_image(torch.zeros(3, 20, 20)).save(folder / "class1" / "broken.jpg")
    assert edsr().write(folder, tmp_path / "target") == 6


def test_folders_that_cannot_be_worked_on_are_refused(folder, tmp_path):
    with pytest.raises(NotADirectoryError, match=r"must be a folder of images <class>/<file>, got .*nowhere"):
        edsr().write(tmp_path / "nowhere", tmp_path / "target")
    with pytest.raises(FileNotFoundError, match=r"no images <class>/<file> with the endings .jpg, .jpeg, .png in"):
        edsr().write(folder / "class0", tmp_path / "target")
    for target in (folder, folder / "distorted"):
        with pytest.raises(ValueError, match="the target must lie outside the source"):
            edsr().write(folder, target)
    for shard in ((3, 3), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=r"shard must be \(index, count\) with 0 <= index < count"):
            edsr().write(folder, tmp_path / "target", shard=shard)
    assert not (tmp_path / "target").exists()


def test_a_target_that_was_begun_otherwise_is_refused(folder, tmp_path):
    target = tmp_path / "target"
    edsr().write(folder, target, seed=1)
    record = json.loads((target / "deepaugment.json").read_text())
    settings = {"method": "edsr", "head": "entry", "body": "trunk", "seed": 1, "probability": 0.3, "side": 12}
    assert record.items() >= (settings | {"images": 10}).items()
    assert record.keys() == settings.keys() | {"images", "names", "network"}
    trained = edsr()
    with torch.no_grad():
        trained.editor.network.trunk[1].second.bias[3] += 1e-3
    for other, seed, change in (
        (edsr(), 2, "seed was 1, is 2"),
        (edsr(probability=0.1), 1, "probability was 0.3, is 0.1"),
        (edsr(head="shift"), 1, "head was entry, is shift"),
        (trained, 1, "network was [0-9a-f]{64}, is [0-9a-f]{64}"),
        (cae(), 1, "method was edsr, is cae; head was entry, is None; .*encoder was None, is encoder"),
    ):
        with pytest.raises(ValueError, match=f"was written with other settings .{change}.*: use the same, or another"):
            other.write(folder, target, seed=seed)
    assert json.loads((target / "deepaugment.json").read_text()) == record
    (folder / "class0" / "image0.JPEG").rename(folder / "class0" / "renamed.JPEG")
    with pytest.raises(ValueError, match=r"settings .names was [0-9a-f]{64}, is [0-9a-f]{64}.:"):
        edsr().write(folder, target, seed=1)
    (folder / "class0" / "renamed.JPEG").unlink()
    with pytest.raises(ValueError, match="images was 10, is 9"):
        edsr().write(folder, target, seed=1)


def test_a_code_that_is_binary_in_one_run_is_so_in_all(folder, tmp_path):
    cae().write(folder, tmp_path / "target")
    with pytest.raises(ValueError, match="binarise was True, is False"):
        cae(binarise=False).write(folder, tmp_path / "target")


@pytest.mark.parametrize("make", BOTH)
def test_without_a_generator_all_draws_are_of_the_cpu(make, monkeypatch):
    augment, used = make(), []
    for name in ("edit", "distort"):
        real = getattr(type(augment.editor), name)
        monkeypatch.setattr(type(augment.editor), name, lambda *a, real=real: used.append(a[-1]) or real(*a))
    augment.distort(torch.rand(1, 3, 16, 16, generator=generator()))
    assert used == [torch.default_generator] * 2
