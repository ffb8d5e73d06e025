"""The laws that every corruption keeps, whatever it does."""

import sys
import warnings

import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench.corruptions import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    PRESETS,
    SizeWarning,
    apply,
    available,
    corrupt,
    sample,
)
from robust_bench.corruptions.table import find

NAMES = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
SHAPES = [(3, 32, 32), (1, 32, 32), (3, 33, 47), (3, 8, 8), (1, 7, 19)]
CASES = [(name, shape) for name in NAMES for shape in SHAPES if min(shape[1:]) >= find(name).smallest]


@pytest.mark.parametrize(("name", "shape"), CASES, ids=lambda value: value if isinstance(value, str) else str(value))
class TestLaws:
    def test_a_batch_gives_the_bytes_of_its_images(self, pictures, name, shape):
        images = pictures(size=shape[1:], channels=shape[0])
        whole = corrupt(images, name, 3, "cifar", seed=3)
        assert whole.shape == images.shape
        assert whole.dtype == torch.uint8
        ids = torch.arange(5)
        for index in range(5):
            one = slice(index, index + 1)
            assert torch.equal(corrupt(images[one], name, 3, "cifar", seed=3, ids=ids[one]), whole[one])

    def test_the_order_does_not_matter(self, pictures, name, shape):
        images, order = pictures(size=shape[1:], channels=shape[0]), torch.tensor([3, 0, 4, 1, 2])
        whole = corrupt(images, name, 2, "cifar")
        assert torch.equal(corrupt(images[order], name, 2, "cifar", ids=order), whole[order])

    def test_a_severity_per_image_is_a_loop(self, pictures, name, shape):
        images, severity = pictures(size=shape[1:], channels=shape[0]), torch.tensor([5, 1, 3, 1, 4])
        mixed = corrupt(images, name, severity, "cifar")
        for index, level in enumerate(severity.tolist()):
            assert torch.equal(mixed[index], corrupt(images, name, level, "cifar")[index])

    def test_chunks_do_not_matter(self, pictures, name, shape, monkeypatch):
        images = pictures(size=shape[1:], channels=shape[0])
        whole = corrupt(images, name, 3, "cifar")
        monkeypatch.setattr(sys.modules["robust_bench.corruptions.corrupt"], "_CHUNK", 1)
        assert torch.equal(corrupt(images, name, 3, "cifar"), whole)

    def test_corrupt_is_sample_and_apply(self, pictures, name, shape):
        images, severity = pictures(size=shape[1:], channels=shape[0]), torch.tensor([5, 1, 3, 1, 4])
        draws = sample(name, severity, images.shape, random=ImageRandom(9), preset="cifar")
        whole = corrupt(images, name, severity, "cifar", seed=9)
        assert torch.equal(apply(name, images, severity, draws, preset="cifar"), whole)
        assert torch.equal(apply(name, images[:2], severity[:2], draws[:2], preset="cifar"), whole[:2])
        some = torch.tensor([4, 2])
        assert torch.equal(apply(name, images[some], severity[some], draws[some], preset="cifar"), whole[some])

    def test_nothing_that_was_given_changes(self, pictures, name, shape):
        images = pictures(size=shape[1:], channels=shape[0])
        copy, state = images.clone(), torch.get_rng_state()
        corrupt(images, name, torch.tensor([1, 2, 3, 4, 5]), "cifar")
        draws = sample(name, 2, images.shape, random=ImageRandom(0), preset="cifar")
        drawn = {field: values.clone() for field, values in draws.fields.items()}
        floats = images / 255
        apply(name, images, 2, draws, preset="cifar")
        apply(name, floats, 2, draws, preset="cifar")
        assert torch.equal(images, copy)
        assert torch.equal(floats, copy / 255)
        assert all(torch.equal(draws.fields[field], values) for field, values in drawn.items())
        assert torch.equal(state, torch.get_rng_state())

    def test_floats_are_the_bytes_before_truncation(self, pictures, apart, name, shape):
        images = pictures(size=shape[1:], channels=shape[0])
        draws = sample(name, 3, images.shape, random=ImageRandom(0), preset="cifar")
        out = apply(name, images / 255, 3, draws, preset="cifar")
        assert out.dtype == torch.float32
        assert out.min() >= 0
        assert out.max() <= 1
        levels = (out.add(1e-6).clamp(max=1.0) * 255).to(torch.uint8)
        assert apart(levels, corrupt(images, name, 3, "cifar"))[0] <= 1

    def test_memory_layout_does_not_matter(self, pictures, name, shape):
        images = pictures(size=shape[1:], channels=shape[0])
        whole = corrupt(images, name, 3, "cifar")
        assert torch.equal(corrupt(images.contiguous(memory_format=torch.channels_last), name, 3, "cifar"), whole)
        wide = torch.stack([images, images], dim=-1)[..., 0]
        assert not wide.is_contiguous()
        assert torch.equal(corrupt(wide, name, 3, "cifar"), whole)


@pytest.mark.parametrize("name", NAMES)
class TestNames:
    def test_grey_is_the_first_of_three_equal_channels(self, pictures, name):
        grey = pictures(channels=1)
        colour = corrupt(grey.expand(-1, 3, -1, -1), name, 3, "cifar")
        assert torch.equal(corrupt(grey, name, 3, "cifar"), colour[:, :1])

    def test_an_empty_batch_stays_empty(self, name):
        empty = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
        assert corrupt(empty, name, 3, "cifar").shape == (0, 3, 32, 32)
        draws = sample(name, 3, empty.shape, random=ImageRandom(0), preset="cifar")
        assert apply(name, empty / 255, 3, draws, preset="cifar").shape == (0, 3, 32, 32)

    def test_exact_arithmetic_differs_by_truncation_only(self, pictures, name):
        images = pictures()
        exact = corrupt(images, name, 3, "cifar", precision="double")
        difference = (exact.int() - corrupt(images, name, 3, "cifar").int()).abs()
        truncations = 2 if name == "glass_blur" else 1
        assert (difference > truncations).double().mean() < 1e-3

    def test_short_floats_are_computed_in_float32(self, pictures, name):
        images = (pictures() / 255).to(torch.bfloat16)
        draws = sample(name, 3, images.shape, random=ImageRandom(0), preset="cifar")
        out = apply(name, images, 3, draws, preset="cifar")
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, apply(name, images.float(), 3, draws, preset="cifar").to(torch.bfloat16))

    def test_autocast_changes_nothing(self, pictures, name):
        images = pictures()
        whole = corrupt(images, name, 3, "cifar")
        with torch.autocast("cpu"):
            assert torch.equal(corrupt(images, name, 3, "cifar"), whole)

    def test_threads_change_nothing(self, pictures, name):
        images, threads = pictures(count=2, size=(224, 224)), torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            single = corrupt(images, name, 3)
            torch.set_num_threads(2)
            assert torch.equal(corrupt(images, name, 3), single)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize("name", [name for name in NAMES if find(name, "imagecorruptions") is not find(name)])
def test_the_other_variant_differs_and_keeps_the_laws(pictures, name):
    images = pictures(size=(48, 56))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SizeWarning)
        whole = corrupt(images, name, 2, variant="imagecorruptions")
        assert not torch.equal(whole, corrupt(images, name, 2))
        some = torch.tensor([3, 1])
        assert torch.equal(corrupt(images[some], name, 2, variant="imagecorruptions", ids=some), whole[some])
        draws = sample(name, 2, images.shape, random=ImageRandom(0), variant="imagecorruptions")
        assert torch.equal(apply(name, images, 2, draws, variant="imagecorruptions"), whole)
        grey = corrupt(images[:, :1], name, 2, variant="imagecorruptions")
        colour = corrupt(images[:, :1].expand(-1, 3, -1, -1), name, 2, variant="imagecorruptions")
    assert torch.equal(grey, colour[:, :1])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("elastic_transform", "saturate")])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_higher_severity_is_further_from_the_clean_image(pictures, name, preset):
    """Not for elastic_transform, whose published severity 1 moves the whole image furthest, nor for saturate.

    The severities 1 and 2 of saturate take colour away and the others add some: which is further depends on the image.
    """
    side = PRESETS[preset].size
    images = pictures(count=3, size=(side, side))
    apart = [
        (corrupt(images, name, severity, preset).int() - images.int()).abs().double().mean() for severity in (1, 5)
    ]
    assert apart[1] > apart[0]


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", PRESETS)
def test_cpu_and_gpu_agree(pictures, name, preset):
    side = PRESETS[preset].size
    images = pictures(count=9, size=(side, side))
    severity = torch.tensor([1, 2, 3, 4, 5, 5, 4, 3, 1])
    found = corrupt(images.cuda(), name, severity, preset)
    assert found.is_cuda
    difference = (found.cpu().int() - corrupt(images, name, severity, preset).int()).abs()
    assert (difference > 1).double().mean() <= (1e-3 if name in ("snow", "spatter") else 0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("jpeg_compression", "spatter")])
def test_a_gpu_is_not_waited_for(pictures, name):
    images = pictures(count=4, size=(224, 224)).cuda()
    corrupt(images, name, 3)  # fills the caches
    torch.cuda.set_sync_debug_mode("error")
    try:
        corrupt(images, name, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_available_depends_on_the_size():
    assert available(32, 32) == CORRUPTIONS
    assert set(available(8, 224)) < set(CORRUPTIONS)
