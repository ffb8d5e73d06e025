"""Intermediate features: what leaves the blocks, beside what timm gives and what is computed by hand."""

import pytest
import timm
import torch
from robust_models import NormalizedModel, SmallCNN
from robust_models.attention import block_outputs
from torch import nn

VIT = {"img_size": 32, "num_classes": 5, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
SWIN = {"img_size": 32, "num_classes": 5, "window_size": 4, "embed_dim": 12, "depths": (2, 3), "num_heads": (3, 6)}


def build(name, **settings):
    torch.manual_seed(0)
    model = timm.create_model(name, **settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def rand(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def images():
    return rand(3, 3, 32, 32)


@pytest.fixture
def vit():
    return build("vit_tiny_patch16_224", **VIT)


# What a family is, how many blocks each of timm's maps stands for, and how a block's output is one of them.
def as_tokens(output, grid):
    patches = output[:, -grid[0] * grid[1] :]
    return patches.transpose(1, 2).unflatten(2, grid)


def as_it_is(output, grid):
    return output


def channels_last(output, grid):
    return output.permute(0, 3, 1, 2)


FAMILIES = {
    "deit": ("deit_tiny_distilled_patch16_224", VIT, (1, 1, 1), as_tokens),
    "beit": ("beit_base_patch16_224", {**VIT, "use_rel_pos_bias": True}, (1, 1, 1), as_tokens),
    "eva": ("eva02_tiny_patch14_224", {**VIT, "embed_dim": 48}, (1, 1, 1), as_tokens),
    "xcit": ("xcit_nano_12_p16_224", {**VIT, "num_heads": 4}, (1, 1, 1), as_tokens),
    "cait": ("cait_xxs24_224", {**VIT, "num_heads": 4}, (1, 1, 1), as_tokens),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, (2, 3), channels_last),
    "swin 2": ("swinv2_tiny_window8_256", SWIN, (2, 3), channels_last),
    "convnext": ("convnext_atto", {"depths": (1, 2, 1, 1), "dims": (4, 8, 8, 8)}, (1, 2, 1, 1), as_it_is),
    "resnet": ("resnet10t", {"num_classes": 5}, (1, 1, 1, 1, 1), as_it_is),
    "rvt": ("rvt_tiny", {"img_size": 32, "num_classes": 5, "depths": (2, 1)}, (1, 1, 1), as_tokens),
    "fan": ("fan_tiny_8_p4_hybrid", {"num_classes": 5, "depth": 2}, (1, 1), as_tokens),
    "gfnet": ("gfnet_tiny", {"img_size": 32, "num_classes": 5, "dims": (16,), "depths": (2,)}, (1, 1), as_tokens),
    "drvit": ("drvit_small_patch16", {"img_size": 32, "num_classes": 5, "depth": 2}, (1, 1), as_tokens),
    "wide": ("wrn_28_10", {"depth": 10, "width": 1}, (1, 1, 1), as_it_is),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_the_maps_of_timm_and_the_logits_those_of_the_model(family, images):
    name, settings, blocks_of_map, layout = FAMILIES[family]
    model = build(name, **settings)
    with torch.no_grad():
        maps = model.forward_intermediates(images, intermediates_only=True)
        found = block_outputs(model, images)
        assert torch.equal(found.logits, model(images))
    outputs = list(found.outputs.values())
    assert len(outputs) == sum(blocks_of_map)
    assert len(maps) == len(blocks_of_map)
    last = -1
    for blocks, expected in zip(blocks_of_map, maps, strict=True):
        last += blocks  # the last block of a stage gives what leaves the stage
        torch.testing.assert_close(layout(outputs[last], expected.shape[2:]), expected)


def test_class_tokens_are_there_and_each_block_follows_from_the_one_before(vit, images):
    found = block_outputs(vit, images).outputs
    assert list(found) == ["blocks.0", "blocks.1", "blocks.2"]
    x = vit.patch_embed(images)
    x = torch.cat((vit.cls_token.expand(3, -1, -1), x), dim=1) + vit.pos_embed
    for block, output in zip(vit.blocks, found.values(), strict=True):
        x = x + block.attn(block.norm1(x))
        x = x + block.mlp(block.norm2(x))
        assert output.shape == (3, 17, 24)
        torch.testing.assert_close(output, x)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_loss_of_the_outputs_trains_model_and_images_in_train_mode(checkpointing):
    """The alignment of RSPC: two halves of one batch, the mean squared differences of every block."""
    model = NormalizedModel(build("rvt_tiny", img_size=32, depths=(2, 1), num_classes=5), [0.5] * 3, [0.5] * 3).train()
    model.set_grad_checkpointing(checkpointing)
    changed, clean = rand(4, 3, 32, 32).chunk(2)
    changed = changed.clone().requires_grad_()
    found = block_outputs(model, torch.cat((changed, clean)))
    loss = sum((left - right).square().mean() for left, right in (each.chunk(2) for each in found.outputs.values()))
    wanted = [changed, *model.unwrap().transformers[-1].parameters(), *model.unwrap().patch_embed.parameters()]
    gradients = torch.autograd.grad(loss + found.logits[2:].logsumexp(dim=1).mean(), wanted, retain_graph=True)
    assert all(float(each.abs().sum()) > 0 for each in gradients)
    assert model.training

    by_hand, mixed = 0.0, model.normalize(torch.cat((changed, clean)))
    for output in model.unwrap().forward_intermediates(mixed, intermediates_only=True):
        by_hand = by_hand + (output[:2] - output[2:]).square().mean()
    torch.testing.assert_close(loss, by_hand)
    torch.testing.assert_close(torch.autograd.grad(loss, changed), torch.autograd.grad(by_hand, changed))


def test_indices_are_those_of_timm(vit, images):
    whole = list(block_outputs(vit, images).outputs)
    assert list(block_outputs(vit, images, indices=2).outputs) == whole[1:]
    assert list(block_outputs(vit, images, indices=(0, -1)).outputs) == [whole[0], whole[2]]
    for wrong in (0, 4, [3], [-4]):
        with pytest.raises(ValueError, match=r"out of range .*: there are 3 blocks, blocks\.0 to blocks\.2"):
            block_outputs(vit, images, indices=wrong)


def test_other_modules_by_their_names(vit, images):
    found = block_outputs(nn.Sequential(vit), images, pattern=r"0\.blocks\.\d+\.mlp", indices=[1])
    assert list(found.outputs) == ["0.blocks.1.mlp"]
    with pytest.raises(ValueError, match=r"no module of VisionTransformer matches 'block': it has patch_embed, "):
        block_outputs(vit, images, pattern="block")


def test_wrappers_are_looked_through(vit, images):
    plain = block_outputs(vit, (images - 0.5) / 0.25).outputs
    wrapped = block_outputs(NormalizedModel(vit, [0.5] * 3, [0.25] * 3), images).outputs
    assert list(wrapped) == [f"model.{name}" for name in plain]
    for one, other in zip(plain.values(), wrapped.values(), strict=True):
        assert torch.equal(one, other)


def test_gradients_of_the_outputs_are_collected_by_distributed_training(vit, images, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        found = block_outputs(nn.parallel.DistributedDataParallel(vit), images)
        assert list(found.outputs) == ["module.blocks.0", "module.blocks.1", "module.blocks.2"]
        (found.logits.sum() + sum(output.square().sum() for output in found.outputs.values())).backward()
        collected = [parameter.grad.clone() for parameter in vit.parameters()]
    finally:
        torch.distributed.destroy_process_group()
    vit.zero_grad()
    found = block_outputs(vit, images)
    (found.logits.sum() + sum(output.square().sum() for output in found.outputs.values())).backward()
    for one, parameter in zip(collected, vit.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_blocks_that_run_twice_are_there_twice(images):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return self.block(self.block(images)).mean(dim=(2, 3))

    model = Twice()
    found = block_outputs(model, images, pattern="block").outputs
    assert list(found) == ["block", "block (2)"]
    torch.testing.assert_close(model.block(found["block"]), found["block (2)"])


def test_what_is_overwritten_is_refused_where_it_is_seen_and_kept_where_it_is_not(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten())
    with pytest.raises(ValueError, match="what leaves 0 is overwritten by a layer behind it"):
        block_outputs(model, images, pattern="0")
    with torch.inference_mode():
        found = block_outputs(model, images, pattern="0").outputs["0"]
        assert float(found.min()) < 0
        assert torch.equal(found, model[0](images))


def test_nothing_stays_behind(vit, images):
    vit.train()
    vit.blocks[1].eval()
    modes = [module.training for module in vit.modules()]
    block_outputs(vit, images)
    with pytest.raises(AssertionError):  # of timm, in the middle of the forward pass
        block_outputs(vit, images[:, :, :24])
    with pytest.raises(ValueError, match="gives list, no tensor: ask for the modules inside of it"):
        block_outputs(build("selecsls42"), images)
    assert [module.training for module in vit.modules()] == modes
    assert all(not module._forward_hooks for module in vit.modules())


def test_models_that_do_not_show_their_blocks_are_refused(vit, images):
    with pytest.raises(TypeError, match="got function: pass the model itself"):
        block_outputs(lambda images: images, images)
    with pytest.raises(ValueError, match=r"Sequential does not describe its blocks.*: say by pattern"):
        block_outputs(nn.Sequential(nn.Flatten()), images)
    with pytest.raises(ValueError, match=r"timm describes a module 'block\.0' that Twins does not have"):
        block_outputs(build("twins_svt_small", img_size=64, embed_dims=(8, 16, 32, 64), depths=(1, 1, 1, 1)), images)
    compiled = torch.compile(vit, backend="eager")
    compiled(images)
    with pytest.raises(ValueError, match=r"_orig_mod\.blocks\.0 and 2 more did not run, or out of sight"):
        block_outputs(compiled, images)


def test_small_networks_have_features_too():
    found = block_outputs(SmallCNN(), torch.rand(2, 1, 8, 8)).outputs
    assert {name: tuple(output.shape) for name, output in found.items()} == {
        "conv1": (2, 32, 8, 8),
        "conv2": (2, 32, 8, 8),
        "conv3": (2, 64, 4, 4),
    }
