"""DrViT: stored numbers, published sizes, its codes and its gradients."""

import socket
import warnings

import pytest
import timm
import torch
from robust_models import create_model, download, drvit
from robust_models.cache import place
from robust_models.drvit import DrViT
from robust_models.registry import get_entry
from robust_models.vqgan import vqgan_f16_1024

MASKED = "ignore:the gradient by the images leaves out the codes"


@pytest.fixture(scope="module")
def small():
    """Three blocks on images of 32 x 48."""
    torch.manual_seed(0)
    model = DrViT(img_size=(32, 48), num_classes=5, embed_dim=288, depth=3, num_heads=4)
    torch.nn.init.normal_(model.quantize.embedding.weight)
    return model.eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.filterwarnings(MASKED)
def test_answers_as_stored(golden):
    stored = golden("drvit_small_patch16")
    model = timm.create_model("drvit_small_patch16")
    stored.check(model)
    codes = model.code_indices(stored.images).flatten(1)
    assert codes.tolist() == stored.stored["code_indices"]


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [
        ("drvit_small_patch16", 51_479_912, 299),
        ("drvit_base_patch16", 115_996_904, 299),
        ("drvit_large_patch16", 333_755_880, 443),
    ],
)
def test_has_the_published_size(name, parameters, tensors):
    with torch.device("meta"):
        network = timm.create_model(name)
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors
    assert sum(each.numel() for each in network.vq_encoder.parameters()) == 29_298_176
    assert sum(each.numel() for each in network.vq_quant_conv.parameters()) == 65_792
    assert network.quantize.embedding.weight.numel() == 262_144


def test_follows_the_protocol(protocol):
    checks = protocol("drvit_small_patch16", img_size=32, depth=3)
    checks.builds_the_same_under_one_seed()
    checks.answers_in_any_shape()
    checks.gives_features_and_heads()
    checks.gives_intermediates()
    checks.tells_groups_of_parameters()


@pytest.mark.slow
def test_can_be_exported(protocol):
    protocol("drvit_small_patch16", img_size=32, depth=1).can_be_exported()


def test_trains_everything_but_the_encoder():
    torch.manual_seed(0)
    model = DrViT(img_size=16, num_classes=5, embed_dim=288, depth=1, num_heads=4).train()
    assert model.blocks.training
    assert not any(module.training for part in (model.vq_encoder, model.vq_quant_conv) for module in part.modules())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.rand(2, 3, 16, 16))
    torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1])).backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("vq_"), name


@pytest.mark.filterwarnings(MASKED)
def test_saving_memory_changes_no_gradient(small, images):
    gradients = []
    for enable in (False, True):
        small.set_grad_checkpointing(enable)
        small.zero_grad()
        small(images).sum().backward()
        gradients.append({name: each.grad for name, each in small.named_parameters() if each.grad is not None})
    small.set_grad_checkpointing(False)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    assert gradients[0].keys() == {name for name, each in small.named_parameters() if each.requires_grad}


def test_tokens_are_a_linear_embedding_beside_a_code(small, images):
    tokens = []
    handle = small.blocks[0].register_forward_pre_hook(lambda _module, inputs: tokens.append(inputs[0]))
    small(images)
    handle.remove()
    patches = (tokens[0] - small.pos_embed)[:, 1:]
    codes = small.code_indices(images)
    assert codes.shape == (2, 2, 3)
    assert len(codes.unique()) > 2
    torch.testing.assert_close(patches[..., 32:], small.quantize.embedding.weight[codes.flatten(1)])
    linear = torch.conv2d(images, small.patch_embed.proj.weight, small.patch_embed.proj.bias, stride=16)
    torch.testing.assert_close(patches[..., :32], linear.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((tokens[0] - small.pos_embed)[:, :1], small.cls_token.expand(2, 1, -1))


def test_the_mean_over_patches_is_normed(small, images):
    tokens = small.forward_features(images)
    mean = tokens[:, 1:].mean(1)
    mean = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(small.forward_head(tokens, pre_logits=True), mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("straight_through", [False, True])
def test_the_gradient_by_the_images(small, straight_through):
    """By finite differences of the function that each of the two gradients belongs to."""
    model = DrViT(
        img_size=(32, 16), num_classes=5, embed_dim=288, depth=1, num_heads=4, straight_through=straight_through
    )
    model.double().eval()
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(1, 3, 32, 16, generator=generator) * 2 - 1).double()
    direction = torch.randn(1, 3, 32, 16, generator=generator).double()

    @torch.no_grad()
    def latents(at):
        return model.vq_quant_conv(model.vq_encoder(at))

    codes, anchor = model.quantize(latents(images)).detach(), latents(images)

    @torch.no_grad()
    def answer(at):
        now = codes + (latents(at) - anchor if straight_through else 0)
        tokens = torch.cat([model.patch_embed(at), now.flatten(2).transpose(1, 2)], -1)
        return model.forward_head(model.blocks(model._pos_embed(tokens)))[0, 2]

    step = 1e-4
    expected = (answer(images + step * direction) - answer(images - step * direction)) / (2 * step)
    images.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error" if straight_through else "ignore")
        (gradient,) = torch.autograd.grad(model(images)[0, 2], images)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=1e-9)


def test_warns_of_masked_gradients_only_where_there_are_any(small, images):
    small(images)
    with pytest.warns(UserWarning, match=r"gradient masking.*straight_through=True"):
        small(images.clone().requires_grad_())
    model = create_model("drvit_small_patch16", img_size=(32, 48), model_args={"depth": 1})
    with pytest.warns(UserWarning, match="gradient masking"):
        model((images / 2 + 0.5).requires_grad_())
    model.unwrap().quantize.straight_through = True
    model((images / 2 + 0.5).requires_grad_())


def test_other_sizes(small, images):
    with pytest.raises(ValueError, match="built for images of 32 x 48 pixels, got 48 x 32"):
        small(images.transpose(2, 3))
    with pytest.raises(ValueError, match="multiple of 16, got 40"):
        DrViT(img_size=40)
    with pytest.raises(ValueError, match=r"more than 256.*embed_dim=256"):
        DrViT(embed_dim=256, num_heads=4)
    resized = DrViT(img_size=(32, 48), num_classes=5, embed_dim=288, depth=1, num_heads=4).eval()
    resized.set_input_size((48, 64))
    assert resized.pos_embed.shape == (1, 13, 288)
    assert resized(torch.rand(1, 3, 48, 64)).shape == (1, 5)
    assert resized.code_indices(torch.rand(1, 3, 48, 64)).shape == (1, 3, 4)
    with pytest.raises(ValueError, match="patch_size=8"):
        resized.set_input_size(patch_size=8)
    with pytest.raises(ValueError, match="multiple of 16, got 50"):
        resized.set_input_size(50)


def test_intermediates_as_tokens_and_normed(small, images):
    features, maps = small.forward_intermediates(images, indices=1, output_fmt="NLC")
    assert torch.equal(maps[0], features[:, 1:])
    (normed,) = small.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    assert torch.equal(normed, small.norm(features)[:, 1:].transpose(1, 2).reshape(2, 288, 2, 3))
    with pytest.raises(ValueError, match="'NHWC'"):
        small.forward_intermediates(images, output_fmt="NHWC")
    assert small.get_attention_modules() == [block.attn for block in small.blocks]


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with torch.device("meta"):
        timm.create_model("drvit_small_patch16")
        vqgan_f16_1024()
        with pytest.raises(FileNotFoundError, match=r"vqgan_imagenet_f16_1024.*nothing is downloaded"):
            DrViT(vq_weights="vqgan_imagenet_f16_1024")


def test_takes_the_encoder_of_a_vqgan_file(small, images, tmp_path, monkeypatch):
    names = {"vq_encoder.": "encoder.", "vq_quant_conv.": "quant_conv.", "quantize.": "quantize."}
    weights = {
        theirs + name.removeprefix(ours): value
        for name, value in small.state_dict().items()
        for ours, theirs in names.items()
        if name.startswith(ours)
    }
    rest = {"decoder.conv_in.weight": torch.ones(2), "post_quant_conv.bias": torch.ones(2), "loss.x": torch.ones(2)}
    file = tmp_path / "vqgan.ckpt"
    torch.save({"state_dict": {**weights, **rest}}, file)
    options = {"img_size": (32, 48), "num_classes": 5, "embed_dim": 288, "depth": 1, "num_heads": 4}
    model = DrViT(**options, vq_weights=file)
    assert torch.equal(model.code_indices(images), small.code_indices(images))
    monkeypatch.setenv("ROBUST_MODELS_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ROBUST_MODELS_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"no VQGAN weights at .*nothing\.ckpt, and no entry of the zoo"):
        DrViT(**options, vq_weights=tmp_path / "nothing.ckpt")
    entry = get_entry("auxiliary/vqgan_imagenet_f16_1024")
    place(entry).parent.mkdir(parents=True)
    place(entry).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="nothing to compare it with"):
        DrViT(**options, vq_weights="vqgan_imagenet_f16_1024")
    download(entry)  # takes what lies there, and records its checksum
    cached = DrViT(**options, vq_weights="vqgan_imagenet_f16_1024")
    assert torch.equal(cached.code_indices(images), small.code_indices(images))
    assert not any(each.requires_grad for each in model.vq_encoder.parameters())
    with torch.device("meta"):
        published = set(vqgan_f16_1024().state_dict())
    assert set(weights) <= published
    del weights["encoder.conv_out.bias"], weights["quantize.embedding.weight"]
    torch.save(weights, file)
    with pytest.raises(ValueError, match=r"lacks 2 of the 147 entries.*conv_out.bias"):
        DrViT(**options, vq_weights=file)


def test_reads_files_of_another_layout_and_image_size(small):
    state = small.state_dict()
    older = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: state[name] for name in state}
    assert "fc_norm.weight" in older
    found = drvit.checkpoint_filter(older, small)
    assert list(found) == list(state)
    assert all(found[name] is state[name] for name in state)
    with torch.device("meta"):
        bigger = DrViT(img_size=64, num_classes=5, embed_dim=288, depth=3, num_heads=4)
    square = {**state, "pos_embed": torch.cat([state["pos_embed"][:, :1], torch.ones(1, 4, 288)], 1)}
    table = drvit.checkpoint_filter(square, bigger)["pos_embed"]
    assert table.shape == bigger.pos_embed.shape
    torch.testing.assert_close(table[:, 1:], torch.ones(1, 16, 288))
    assert torch.equal(table[:, :1], state["pos_embed"][:, :1])
