"""Parity with the published code, and the laws that every corruption keeps."""

import io
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from robust_attacks import ImageRandom
from robust_bench.corruptions import (
    CORRUPTIONS,
    GROUPS,
    PRESETS,
    Draws,
    SizeWarning,
    apply,
    corrupt,
    preset_for,
    sample,
)

SEVERITIES = (1, 2, 3, 4, 5)


def pictures(count=5, size=(32, 32), channels=3, seed=0):
    """Smooth random images with exact black, white and plain areas among them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, channels, 5, 5), generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    out = (fine * 1.4 - 0.2).clamp(0, 1).mul(255).round().to(torch.uint8)
    out[:, :, :2, :2] = 0
    out[:, :, -2:, -2:] = 255
    return out


# ---- parity (spec 9) ----


@pytest.fixture(scope="module")
def references(shared):
    folder = shared / "corruptions"
    with np.load(folder / "reference.npz") as large, np.load(folder / "reference_cifar32.npz") as small:
        return folder, dict(large), dict(small)


def chw(array):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, -3)))


def published(references, name, severity, preset):
    """Clean and corrupted images of the published code, uint8 (N, 3, H, W), and the images' numbers."""
    _, large, small = references
    if preset == "cifar":
        return chw(small["clean"]), chw(small[name][:, severity - 1]), range(4)
    numbers = [number for number in range(4) if f"{name}/img{number}_png" in large]
    stacks = [np.asarray(Image.open(io.BytesIO(large[f"{name}/img{number}_png"].tobytes()))) for number in numbers]
    out = np.stack([stack.reshape(5, 224, 224, 3)[severity - 1] for stack in stacks])
    return chw(large["clean"][numbers]), chw(out), numbers


def difference(found, expected):
    apart = (found.int() - expected.int()).abs()
    return int(apart.max()), float(apart.double().mean()), float((apart > 0).double().mean())


@pytest.mark.shared_data
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", SEVERITIES)
class TestParity:
    @pytest.mark.parametrize("precision", ["float32", "double"])
    @pytest.mark.parametrize("name", ["contrast", "pixelate"])
    def test_bytes_are_equal(self, references, name, severity, preset, precision):
        clean, expected, _ = published(references, name, severity, preset)
        assert torch.equal(corrupt(clean, name, severity, preset, precision=precision), expected)

    def test_brightness_differs_by_truncation_only(self, references, severity, preset):
        clean, expected, _ = published(references, "brightness", severity, preset)
        largest, mean, _ = difference(corrupt(clean, "brightness", severity, preset), expected)
        assert largest <= 1
        assert mean < 0.25
        largest, _, share = difference(corrupt(clean, "brightness", severity, preset, precision="double"), expected)
        assert largest <= 1
        assert share < 0.04

    def test_gaussian_noise_with_the_references_own_draws(self, references, severity, preset):
        clean, expected, numbers = published(references, "gaussian_noise", severity, preset)
        height, width = clean.shape[2:]
        fields = [np.random.RandomState(1000 * number + severity).normal(size=(height, width, 3)) for number in numbers]
        draws = Draws(count=len(fields), fields={"normal": chw(np.stack(fields))})
        largest, mean, share = difference(apply("gaussian_noise", clean, severity, draws, preset=preset), expected)
        assert largest <= 1
        assert mean < 0.25
        exact = apply("gaussian_noise", clean, severity, draws, preset=preset, precision="double")
        assert torch.equal(exact, expected)
        assert share < 0.01


def log_spectrum(difference, edges):
    """Log10 of the mean power (2-D FFT, divided by the number of pixels) between neighbouring radii, of (H, W).

    The mean is taken off first: the published values hold no power at radius 0.
    """
    height, width = difference.shape
    power = torch.fft.fftshift(torch.fft.fft2(difference - difference.mean()).abs() ** 2 / (height * width))
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    radius = (rows[:, None] ** 2 + columns[None] ** 2).sqrt()
    bands = [power[(radius >= low) & (radius < high)].mean() for low, high in itertools.pairwise(edges)]
    return {f"logspec{band}": torch.log10(mean).item() for band, mean in enumerate(bands)}


def statistics(clean, out, edges):
    """The statistics of stats_random.json for one image, uint8 (3, H, W), after its README and `_meta`."""
    apart = out.double() - clean.double()
    flat = apart.flatten(1)
    centred = apart - apart.mean(dim=(1, 2), keepdim=True)
    variance = (centred**2).mean()
    correlations = np.corrcoef(flat.numpy())
    return {
        "mean_out": out.double().mean().item(),
        "mean_diff": apart.mean().item(),
        "std_diff": apart.std(correction=0).item(),
        "psnr": (10 * torch.log10(255.0**2 / (apart**2).mean())).item(),
        "frac0": (out == 0).double().mean().item(),
        "frac255": (out == 255).double().mean().item(),
        "chan_corr": float(np.mean([correlations[0, 1], correlations[0, 2], correlations[1, 2]])),
        "ac_x": ((centred[:, :, 1:] * centred[:, :, :-1]).mean() / variance).item(),
        "ac_y": ((centred[:, 1:] * centred[:, :-1]).mean() / variance).item(),
        "grad_ratio_x": (out.double().diff(dim=2).abs().mean() / clean.double().diff(dim=2).abs().mean()).item(),
        "grad_ratio_y": (out.double().diff(dim=1).abs().mean() / clean.double().diff(dim=1).abs().mean()).item(),
        **log_spectrum(apart.mean(dim=0), edges),
    }


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("severity", SEVERITIES)
def test_own_draws_have_the_published_statistics(references, severity):
    """Spec 9 (c): 32 draws per image, |mean - ref| <= 4 sqrt(sd^2/4 + sd^2/32) + .02 |ref|, plus .005 for shares."""
    folder, large, _ = references
    published = json.loads((folder / "stats_random.json").read_text())
    reference, edges = published[f"gaussian_noise/{severity}"], published["_meta"]["radial_edges"]
    clean = chw(large["clean"])
    for number in range(4):
        batch = clean[number : number + 1].expand(32, -1, -1, -1)
        out = corrupt(
            batch, "gaussian_noise", severity, variant="imagecorruptions", ids=torch.arange(32) + 100 * number
        )
        rows = [statistics(clean[number], one, edges) for one in out]
        assert rows[0].keys() == reference.keys()
        for statistic in rows[0]:
            entry = reference[statistic]
            mean = float(np.mean([row[statistic] for row in rows]))
            expected, deviation = entry["per_image"][number], entry["sd_seed"]
            bound = 4 * (deviation**2 / 4 + deviation**2 / 32) ** 0.5 + 0.02 * abs(expected)
            bound += 0.005 if statistic.startswith("frac") else 0.0
            assert abs(mean - expected) <= bound, (statistic, number, mean, expected, bound)


# ---- independent routes ----


def pillow_pixelate(image, scale):
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    width, height = picture.size
    small_width, small_height = max(1, int(width * scale)), max(1, int(height * scale))
    narrow = picture.resize((small_width, height), Image.Resampling.BOX)  # rows first, whatever Pillow would choose
    small = narrow.resize((small_width, small_height), Image.Resampling.BOX)
    return chw(np.array(small.resize((width, height), Image.Resampling.NEAREST)))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (3, 70), (37, 23), (97, 224), (299, 131)])
def test_pixelate_equals_pillow_at_every_size(size, preset):
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for severity, scale in zip(SEVERITIES, PRESETS[preset].constants["pixelate"], strict=True):
        expected = torch.stack([pillow_pixelate(image, scale) for image in images])
        draws = Draws(count=2, fields={})
        assert torch.equal(quiet_apply("pixelate", images, severity, draws, preset=preset), expected)


def test_contrast_equals_the_formula_in_numpy():
    images = pictures(size=(13, 29))
    x = images.numpy() / 255.0
    mean = x.mean(axis=(2, 3), keepdims=True)
    expected = (np.clip((x - mean) * 0.4 + mean, 0, 1) * 255).astype(np.uint8)
    assert torch.equal(corrupt(images, "contrast", 3, "cifar"), torch.from_numpy(expected))


def test_brightness_raises_v_and_keeps_hue_and_saturation():
    import colorsys

    images = pictures(count=1, size=(24, 24))
    out = quiet_apply("brightness", images.double() / 255, 3, Draws(count=1, fields={}), preset="imagenet")
    for before, after in zip(images[0].flatten(1).T.tolist(), out[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in before))
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.3)), abs=1e-12)


def test_gaussian_noise_is_the_formula():
    images = torch.rand(3, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    draws = sample("gaussian_noise", 4, images.shape, random=ImageRandom(1, torch.arange(3)), preset="cifar")
    out = apply("gaussian_noise", images, 4, draws, preset="cifar")
    torch.testing.assert_close(out, (images + 0.09 * draws.fields["normal"]).clamp(0, 1))


# ---- laws ----


def quiet_apply(*arguments, **settings):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SizeWarning)
        return apply(*arguments, **settings)


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (7, 19)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
class TestLaws:
    def test_a_batch_gives_the_bytes_of_its_images(self, name, channels, size):
        images = pictures(size=size, channels=channels)
        whole = corrupt(images, name, 3, "cifar", seed=3)
        assert whole.shape == images.shape
        assert whole.dtype == torch.uint8
        ids = torch.arange(5)
        for index in range(5):
            one = slice(index, index + 1)
            assert torch.equal(corrupt(images[one], name, 3, "cifar", seed=3, ids=ids[one]), whole[one])

    def test_the_order_does_not_matter(self, name, channels, size):
        images, order = pictures(size=size, channels=channels), torch.tensor([3, 0, 4, 1, 2])
        whole = corrupt(images, name, 2, "cifar")
        assert torch.equal(corrupt(images[order], name, 2, "cifar", ids=order), whole[order])

    def test_a_severity_per_image_is_a_loop(self, name, channels, size):
        images, severity = pictures(size=size, channels=channels), torch.tensor([5, 1, 3, 1, 4])
        mixed = corrupt(images, name, severity, "cifar")
        for index, level in enumerate(severity.tolist()):
            assert torch.equal(mixed[index], corrupt(images, name, level, "cifar")[index])

    def test_chunks_do_not_matter(self, name, channels, size, monkeypatch):
        import sys

        images = pictures(size=size, channels=channels)
        whole = corrupt(images, name, 3, "cifar")
        monkeypatch.setattr(sys.modules["robust_bench.corruptions.corrupt"], "_CHUNK", 1)
        assert torch.equal(corrupt(images, name, 3, "cifar"), whole)

    def test_corrupt_is_sample_and_apply(self, name, channels, size):
        images, severity = pictures(size=size, channels=channels), torch.tensor([5, 1, 3, 1, 4])
        draws = sample(name, severity, images.shape, random=ImageRandom(9), preset="cifar")
        assert torch.equal(
            apply(name, images, severity, draws, preset="cifar"), corrupt(images, name, severity, "cifar", seed=9)
        )
        first = apply(name, images[:2], severity[:2], draws[:2], preset="cifar")
        assert torch.equal(first, corrupt(images, name, severity, "cifar", seed=9)[:2])

    def test_nothing_that_was_given_changes(self, name, channels, size):
        images = pictures(size=size, channels=channels)
        copy, state = images.clone(), torch.get_rng_state()
        corrupt(images, name, torch.tensor([1, 2, 3, 4, 5]), "cifar")
        draws = sample(name, 2, images.shape, random=ImageRandom(0), preset="cifar")
        floats = images / 255
        apply(name, floats, 2, draws, preset="cifar")
        assert torch.equal(images, copy)
        assert torch.equal(floats, copy / 255)
        assert torch.equal(state, torch.get_rng_state())

    def test_floats_are_the_bytes_before_truncation(self, name, channels, size):
        images = pictures(size=size, channels=channels)
        draws = sample(name, 3, images.shape, random=ImageRandom(0), preset="cifar")
        out = apply(name, images / 255, 3, draws, preset="cifar")
        assert out.dtype == torch.float32
        levels = (out.add(1e-6).clamp(max=1.0) * 255).to(torch.uint8)
        assert difference(levels, corrupt(images, name, 3, "cifar"))[0] <= 1

    def test_memory_layout_does_not_matter(self, name, channels, size):
        images = pictures(size=size, channels=channels)
        whole = corrupt(images, name, 3, "cifar")
        assert torch.equal(corrupt(images.contiguous(memory_format=torch.channels_last), name, 3, "cifar"), whole)
        wide = torch.stack([images, images], dim=-1)[..., 0]
        assert not wide.is_contiguous()
        assert torch.equal(corrupt(wide, name, 3, "cifar"), whole)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_grey_is_the_first_of_three_equal_channels(name):
    grey = pictures(channels=1)
    colour = corrupt(grey.expand(-1, 3, -1, -1), name, 3, "cifar")
    assert torch.equal(corrupt(grey, name, 3, "cifar"), colour[:, :1])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_empty_batch_stays_empty(name):
    empty = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
    assert corrupt(empty, name, 3, "cifar").shape == (0, 3, 32, 32)
    draws = sample(name, 3, empty.shape, random=ImageRandom(0), preset="cifar")
    assert apply(name, empty / 255, 3, draws, preset="cifar").shape == (0, 3, 32, 32)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_higher_severity_is_further_from_the_clean_image(name, preset):
    side = PRESETS[preset].size
    images = pictures(count=3, size=(side, side))
    apart = [
        (corrupt(images, name, severity, preset).int() - images.int()).abs().double().mean() for severity in (1, 5)
    ]
    assert apart[1] > apart[0]


def test_noise_depends_on_seed_id_and_severity_alone():
    plain = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)

    def noise(**changes):
        return corrupt(plain, "gaussian_noise", **{"severity": 3, "preset": "cifar", "seed": 0} | changes)

    base = noise()
    assert torch.equal(base, noise())
    assert not torch.equal(base[0], base[1])
    assert not torch.equal(base, noise(seed=1))
    assert torch.equal(noise(ids=torch.tensor([7, 7]))[0], noise(ids=torch.tensor([7, 7]))[1])
    normal = [
        sample("gaussian_noise", severity, (1, 3, 32, 32), random=ImageRandom(0), preset="cifar").fields["normal"]
        for severity in (1, 2)
    ]
    assert abs(float((normal[0] * normal[1]).mean())) < 4.9 / (3 * 32 * 32) ** 0.5


def test_draws_survive_a_file(tmp_path):
    draws = sample("gaussian_noise", 3, (2, 3, 8, 8), random=ImageRandom(0), preset="cifar")
    torch.save(draws, tmp_path / "draws.pt")
    found = torch.load(tmp_path / "draws.pt", weights_only=True)
    assert len(found) == 2
    assert torch.equal(found.fields["normal"], draws.fields["normal"])


def test_names_are_in_the_published_order():
    assert CORRUPTIONS == ("gaussian_noise", "brightness", "contrast", "pixelate")
    assert [GROUPS[name] for name in CORRUPTIONS] == ["noise", "weather", "digital", "digital"]
    for preset in PRESETS.values():
        assert preset.constants.keys() == set(CORRUPTIONS)
        assert all(len(constants) == 5 for constants in preset.constants.values())


# ---- sizes and bad input ----


def test_a_preset_that_does_not_fit_warns():
    with pytest.warns(SizeWarning, match="'imagenet' were made for 224 pixels.*32 x 32"):
        corrupt(pictures(), "contrast")
    with pytest.warns(SizeWarning, match="'cifar'"):
        corrupt(pictures(size=(64, 64)), "contrast", preset="cifar")


@pytest.mark.parametrize(
    ("preset", "size"), [("cifar", (8, 8)), ("cifar", (48, 48)), ("imagenet", (160, 300)), ("tiny_imagenet", (64, 64))]
)
def test_a_preset_that_fits_is_quiet(preset, size):
    corrupt(pictures(size=size), "contrast", preset=preset)  # a warning would be an error here


@pytest.mark.parametrize(("side", "preset"), [(8, "cifar"), (32, "cifar"), (64, "tiny_imagenet"), (299, "imagenet")])
def test_the_nearest_preset_is_chosen(side, preset):
    assert preset_for(side, side) == preset


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "fog"}, "unknown corruption 'fog'"),
        ({"preset": "coco"}, "unknown preset"),
        ({"variant": "mine"}, "unknown variant"),
        ({"variant": "imagecorruptions"}, "preset 'imagenet' only"),
        ({"precision": "half"}, "precision"),
        ({"severity": 0}, "1..5"),
        ({"severity": 6}, "1..5"),
        ({"severity": 2.5}, "from 1 to 5"),
        ({"severity": True}, "from 1 to 5"),
        ({"severity": torch.tensor([1, 2])}, "one per image"),
        ({"severity": torch.ones(5)}, "one per image"),
        ({"severity": torch.tensor([1, 2, 3, 4, 6])}, "1..5"),
        ({"ids": torch.tensor([1, 2])}, "one per image"),
        ({"images": pictures() / 255}, "takes uint8"),
        ({"images": pictures().int()}, "takes uint8"),
        ({"images": pictures(channels=4)}, "alpha"),
        ({"images": pictures()[0]}, "must have the shape"),
        ({"images": torch.zeros(1, 3, 0, 4, dtype=torch.uint8)}, "must have the shape"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_bad_input_is_an_error_that_says_what_is_wrong(changes, word):
    arguments = {"images": pictures(), "name": "contrast", "preset": "cifar"} | changes
    with pytest.raises(ValueError, match=word):
        corrupt(arguments.pop("images"), arguments.pop("name"), **arguments)


def test_arrays_are_refused_with_a_hint():
    with pytest.raises(TypeError, match="torch tensor"):
        corrupt(pictures().numpy(), "contrast", preset="cifar")


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (torch.full((1, 3, 32, 32), 1.5), r"\[0, 1\], got \[1.5, 1.5\]"),
        (torch.full((1, 3, 32, 32), float("nan")), r"\[0, 1\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), "uint8, or floats"),
    ],
)
def test_apply_refuses_what_is_no_image(images, word):
    with pytest.raises(ValueError, match=word):
        apply("contrast", images, 3, Draws(count=1, fields={}), preset="cifar")


def test_apply_refuses_draws_that_do_not_fit():
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(ValueError, match="one set of draws per image"):
        apply("gaussian_noise", images, 3, Draws(count=1, fields={}), preset="cifar")
    with pytest.raises(ValueError, match="needs draws named 'normal'"):
        apply("gaussian_noise", images, 3, Draws(count=2, fields={}), preset="cifar")
    wrong = Draws(count=2, fields={"normal": torch.zeros(2, 3, 8, 8)})
    with pytest.raises(ValueError, match="shape"):
        apply("gaussian_noise", images, 3, wrong, preset="cifar")
    with pytest.raises(ValueError, match="first axis"):
        Draws(count=2, fields={"normal": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        sample("gaussian_noise", 3, (3, 32, 32), random=ImageRandom(0))


@pytest.mark.gpu
@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_cpu_and_gpu_agree(name, preset):
    side = PRESETS[preset].size
    images = pictures(count=9, size=(side, side))
    severity = torch.tensor([1, 2, 3, 4, 5, 5, 4, 3, 1])
    found = corrupt(images.cuda(), name, severity, preset)
    assert found.is_cuda
    assert difference(found.cpu(), corrupt(images, name, severity, preset))[0] <= 1
