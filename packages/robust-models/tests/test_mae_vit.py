"""Fine-tuned MAE transformers against stored numbers and against timm's own."""

import logging

import pytest
import timm
import torch
from robust_models import mae_vit

NAMES = {
    "mae_vit_base_patch16": ("vit_base_patch16_224", 86_567_656),
    "mae_vit_large_patch16": ("vit_large_patch16_224", 304_326_632),
    "mae_vit_huge_patch14": ("vit_huge_patch14_224", 632_045_800),
}
SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 64}


def small(**options):
    torch.manual_seed(0)
    return timm.create_model("mae_vit_base_patch16", **{**SMALL, "num_classes": 5, **options}).eval()


def pretrained_file(model):
    """What the authors' pre-training saves: another last norm, a mask token and a decoder, no head."""
    state = {key: value + 1 for key, value in model.state_dict().items() if not key.startswith(("fc_norm", "head"))}
    extra = {"norm.weight": torch.zeros(32), "norm.bias": torch.zeros(32), "mask_token": torch.zeros(1, 1, 16)}
    decoder = {"decoder_pos_embed": torch.zeros(1, 17, 16), "decoder_blocks.0.attn.qkv.weight": torch.zeros(48, 16)}
    return {"model": {**state, **extra, **decoder}}


@pytest.mark.parametrize("name", NAMES)
def test_has_the_shape_of_timms_transformer_with_averaged_tokens(name):
    alias, parameters = NAMES[name]
    with torch.device("meta"):
        model = timm.create_model(name)
        original = timm.create_model(alias, global_pool="avg", num_classes=1000)
        headless = timm.create_model(name, num_classes=0)
    assert sum(each.numel() for each in model.parameters()) == parameters
    assert sum(each.numel() for each in headless.parameters()) == parameters - 1000 * (model.num_features + 1)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in original.state_dict().items()}
    assert list(shapes)[-4:] == ["head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"]  # as in published files


@pytest.mark.slow
@pytest.mark.shared_data
def test_answers_as_published(golden):
    golden("mae_vit_base_patch16").check(timm.create_model("mae_vit_base_patch16"))


def test_answers_like_timms_transformer_with_averaged_tokens():
    model, images = small(), torch.rand(2, 3, 64, 64)
    original = timm.create_model("vit_base_patch16_224", global_pool="avg", num_classes=5, **SMALL).eval()
    original.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(images), original(images), rtol=0, atol=0)


def test_averages_the_patches_without_the_class_token_and_norms_the_mean():
    model = small().double()
    for parameter in (model.fc_norm.weight, model.fc_norm.bias):
        torch.nn.init.normal_(parameter)
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    tokens = {}
    model.blocks[-1].register_forward_hook(lambda module, inputs, output: tokens.update(last=output))
    logits = model(images)
    mean = tokens["last"][:, 1:].mean(1)
    deviation = mean - mean.mean(1, keepdim=True)
    normed = deviation / (deviation.square().mean(1, keepdim=True) + 1e-6).sqrt()
    expected = model.head(normed * model.fc_norm.weight + model.fc_norm.bias)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)


def test_follows_the_protocol_of_timm(protocol):
    kept = protocol("mae_vit_base_patch16", **SMALL)
    kept.check()


def test_says_both_sizes_for_images_of_another_size():
    with pytest.raises(AssertionError, match=r"\(32\) doesn't match model \(64\)"):
        small()(torch.rand(1, 3, 32, 32))


def test_reads_fine_tuned_files_and_resizes_positions():
    source, target = small(), small(img_size=96)
    fitted = mae_vit.checkpoint_filter({"model": source.state_dict(), "epoch": 1}, target)
    target.load_state_dict(fitted)
    assert target.pos_embed.shape == (1, 37, 32)
    torch.testing.assert_close(target.pos_embed[:, 0], source.pos_embed[:, 0], rtol=0, atol=0)
    assert all(
        torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items() if key != "pos_embed"
    )


def test_pre_trained_files_leave_the_last_norm_and_the_head_fresh(caplog):
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    file = pretrained_file(model)
    with caplog.at_level(logging.WARNING):
        fitted = mae_vit.checkpoint_filter(file, model)
    assert "decoder_pos_embed" in caplog.text
    assert "not in the file: fc_norm.bias, fc_norm.weight, head.bias, head.weight" in caplog.text
    report = model.load_state_dict(fitted, strict=False)
    assert sorted(report.missing_keys) == ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"]
    assert not report.unexpected_keys
    for key, value in model.state_dict().items():
        fresh = key.startswith(("fc_norm", "head"))
        torch.testing.assert_close(value, before[key] if fresh else before[key] + 1, rtol=0, atol=0)


def test_a_model_that_norms_every_token_takes_the_norm_of_the_file(caplog):
    model = small(global_pool="token")
    fitted = mae_vit.checkpoint_filter(pretrained_file(small()), model)
    report = model.load_state_dict(fitted, strict=False)
    assert sorted(report.missing_keys) == ["head.bias", "head.weight"]
    assert not model.norm.weight.any()


def test_pretrained_files_go_through_the_filter(tmp_path):
    torch.save(pretrained_file(small()), tmp_path / "mae.pth")
    overlay = {"file": str(tmp_path / "mae.pth"), "num_classes": 0}
    loaded = small(pretrained=True, pretrained_cfg_overlay=overlay)
    torch.testing.assert_close(loaded.cls_token, small().cls_token + 1)
    torch.testing.assert_close(loaded.fc_norm.weight, torch.ones(32))
    assert loaded.num_classes == 5
