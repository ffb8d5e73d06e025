"""Similarity of attention maps."""

import pytest
import timm
import torch
from robust_models.attention import attention_maps
from robust_models.attention_similarity import attention_similarity

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (2, 1), "num_heads": (3, 6), "num_classes": 5}


def build(name, settings):
    torch.manual_seed(0)
    return timm.create_model(name, **settings).eval()


@pytest.fixture(scope="module")
def pair():
    random = torch.Generator().manual_seed(1)
    return torch.rand(4, 3, 32, 32, generator=random), torch.rand(4, 3, 32, 32, generator=random)


@pytest.mark.parametrize(
    ("name", "settings", "heads"),
    [("vit_tiny_patch16_224", VIT, [3, 3]), ("swin_tiny_patch4_window7_224", SWIN, [3, 3, 6])],
)
def test_equals_the_cosine_of_whole_maps(name, settings, heads, pair):
    """Head after head, with the windows of an image put side by side."""
    model = build(name, settings)
    with torch.no_grad():
        found = attention_similarity(model, *pair)
        images, others = (attention_maps(model, each) for each in pair)
    assert [values.shape[1] for values in found.layers.values()] == heads
    every = []
    for layer, values in found.layers.items():
        windows = len(images.maps[layer]) // 4
        for image in range(4):
            rows = slice(image * windows, (image + 1) * windows)
            for head in range(values.shape[1]):
                one = images.maps[layer][rows, head].flatten().double()
                other = others.maps[layer][rows, head].flatten().double()
                expected = float(one @ other / (one.norm() * other.norm()))
                assert float(values[image, head]) == pytest.approx(expected, rel=1e-5)
        every.append(values)
    torch.testing.assert_close(found.mean, torch.cat(every, dim=1).mean(dim=1))
    torch.testing.assert_close(found.logits, others.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "settings"), [("vit_tiny_patch16_224", VIT), ("swin_tiny_patch4_window7_224", SWIN)])
def test_equal_images_have_similarity_one_and_others_less(name, settings, pair):
    model = build(name, settings)
    with torch.no_grad():
        assert attention_similarity(model, pair[0], pair[0]).mean.tolist() == [1.0] * 4
        different = attention_similarity(model, *pair).mean
    assert bool((different < 1.0).all())
    assert bool((different > 0.0).all())


def test_images_of_another_shape_are_refused(pair):
    with pytest.raises(ValueError, match=r"one shape, got \(4, 3, 32, 32\) and \(2, 3, 32, 32\)"):
        attention_similarity(build("vit_tiny_patch16_224", VIT), pair[0], pair[1][:2])
