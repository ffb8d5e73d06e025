"""Resize and crop as recorded."""

import pytest
import torch
from PIL import Image
from robust_bench.preprocess import Preprocess, declared
from torch import nn


def test_the_steps_are_recorded():
    assert Preprocess().settings["steps"] == "Resize(256, bilinear), CenterCrop(224)"
    assert Preprocess(size=64, crop_share=1.0).settings["steps"] == "Resize(64, bilinear), CenterCrop(64)"


def test_the_transform_does_them():
    picture = Image.effect_noise((100, 80), 60).convert("RGB")
    out = Preprocess(size=56).transform()(picture)
    assert out.dtype == torch.uint8
    resized = picture.resize((80, 64), Image.Resampling.BILINEAR)
    cut = resized.crop((12, 4, 68, 60))
    expected = torch.tensor(list(cut.get_flattened_data() if hasattr(cut, "get_flattened_data") else cut.getdata()))
    assert torch.equal(out, expected.to(torch.uint8).T.reshape(3, 56, 56))


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"size": 0}, "size"), ({"crop_share": 1.5}, "crop_share"), ({"interpolation": "x"}, "inter")],
)
def test_impossible_values_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        Preprocess(**settings)


def test_a_timm_models_own_choice_is_found_inside_a_wrapper():
    inner = nn.Identity()
    inner.pretrained_cfg = {"input_size": (3, 288, 288), "crop_pct": 0.95, "interpolation": "bicubic"}
    assert declared(nn.Sequential(inner)) == Preprocess(size=288, crop_share=0.95, interpolation="bicubic")
    assert declared(nn.Identity()) is None
    assert declared(print) is None
