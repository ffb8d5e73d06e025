"""Global filter networks against stored numbers, the convolution theorem and a slow oracle."""

import copy
import math

import pytest
import timm
import torch
from robust_models import create_model, gfnet
from robust_models.gfnet import GFNet, GlobalFilter
from robust_models.gfnet_blocks import Block, resample_filter
from timm.models import group_parameters

SIZES = {
    "gfnet_tiny": 7_511_784,
    "gfnet_xs": 15_985_768,
    "gfnet_small": 24_869_608,
    "gfnet_base": 43_120_616,
    "gfnet_h_tiny": 15_085_096,
    "gfnet_h_ti": 15_085_096,
    "gfnet_h_small": 32_162_632,
    "gfnet_h_base": 53_744_200,
}


def small(**options):
    torch.manual_seed(0)
    return GFNet(**{"dims": (8,), "depths": (2,), "img_size": 64, "num_classes": 5, **options}).eval()


def small_hierarchical(**options):
    return small(**{"dims": (4, 8, 12), "depths": (1, 2, 1), "patch_size": 4, "gamma": 0.5, **options})


@pytest.mark.parametrize("name", SIZES)
def test_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(each.numel() for each in model.parameters()) == SIZES[name]


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["gfnet_tiny", "gfnet_h_ti"])
def test_answers_as_published(name, golden):
    golden(name).check(timm.create_model(name, drop_path_rate=0.0))


@pytest.mark.shared_data
def test_filters_as_published(golden, named):
    stored = golden("modules").stored
    case = stored["cases"]["global_filter"]["output"]
    layer = GlobalFilter(3, (6, 6)).double()
    weight = torch.from_numpy(2 * named(f"{stored['seed']}:gfw", math.prod((6, 4, 3, 2)))).reshape(6, 4, 3, 2)
    layer.load_state_dict({"complex_weight": weight})
    tokens = torch.from_numpy(named(f"{stored['seed']}:gf", 2 * 6 * 6 * 3)).reshape(2, 36, 3)
    expected = torch.tensor(case["data"], dtype=torch.float64).reshape(case["shape"])
    torch.testing.assert_close(layer(tokens).reshape(2, 6, 6, 3), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("grid", [(6, 6), (5, 7), (4, 3), (1, 6)])
def test_filter_is_a_circular_convolution(grid):
    """The convolution theorem, by a sum over all shifts in float64."""
    torch.manual_seed(0)
    height, width = grid
    layer = GlobalFilter(3, grid).double()
    kernel = torch.randn(height, width, 3, dtype=torch.float64)
    spectrum = torch.fft.rfft2(kernel, dim=(0, 1))
    layer.load_state_dict({"complex_weight": torch.view_as_real(spectrum)})
    maps = torch.randn(2, height, width, 3, dtype=torch.float64)
    expected = torch.zeros_like(maps)
    for row in range(height):
        for column in range(width):
            expected += kernel[row, column] * maps.roll((row, column), (1, 2))
    found = layer(maps.flatten(1, 2)).reshape_as(maps)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_filter_keeps_types_and_computes_in_float32_at_least():
    torch.manual_seed(0)
    layer, tokens = GlobalFilter(4, (6, 6)), torch.randn(2, 36, 4)
    exact = copy.deepcopy(layer).double()(tokens.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(layer(tokens).double(), exact, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(tokens), layer.forward(tokens), rtol=0, atol=0)
        assert layer(tokens).dtype == torch.float32
        narrow = layer(tokens.bfloat16())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow, layer(tokens.bfloat16().float()).bfloat16(), rtol=0, atol=0)
    assert copy.deepcopy(layer).bfloat16()(tokens.bfloat16()).dtype == torch.bfloat16


def test_filter_takes_weights_in_any_memory_format():
    layer, tokens = GlobalFilter(4, (6, 6)), torch.randn(2, 36, 4)
    expected = layer(tokens)
    torch.testing.assert_close(layer.to(memory_format=torch.channels_last)(tokens), expected, rtol=0, atol=0)


def spectrum_of(kernel, grid):
    """The filter weight of a small kernel whose corner sits at the origin of the map."""
    spectrum = torch.fft.rfft2(kernel, s=grid, dim=(0, 1))
    return torch.view_as_real(spectrum)


@pytest.mark.parametrize(("old", "new"), [((12, 12), (6, 6)), ((8, 12), (4, 6)), ((10, 9), (5, 3)), ((6, 6), (6, 3))])
def test_a_filter_on_a_divided_grid_is_the_same_kernel(old, new):
    """Frequencies k / n of the coarse grid are among those of the fine one: no interpolation error at all."""
    kernel = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = resample_filter(spectrum_of(kernel, old), old, new)
    torch.testing.assert_close(found, spectrum_of(kernel, new), rtol=1e-12, atol=1e-12)


def test_a_resampled_filter_is_bilinear_between_the_neighbouring_frequencies():
    """By hand: of 9 frequencies, number 5 is 5/9 = (3 + 1/3)/6, number 2 is (1 + 1/3)/6, number 8 is (5 + 1/3)/6."""
    kernel = torch.randn(6, 6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = spectrum_of(kernel, (6, 6))
    found = resample_filter(weight, (6, 6), (9, 9))
    assert found.shape == (9, 5, 1, 2)
    expected = (4 * weight[3, 1] + 2 * weight[3, 2] + 2 * weight[4, 1] + weight[4, 2]) / 9
    torch.testing.assert_close(found[5, 2], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0, 0], weight[0, 0], rtol=1e-12, atol=1e-12)  # the mean of a map
    closed = (2 * weight[5, 0] + weight[0, 0]) / 3  # behind the last frequency the first one follows
    torch.testing.assert_close(found[8, 0], closed, rtol=1e-12, atol=1e-12)


def test_filters_of_a_constant_spectrum_stay_on_odd_and_even_grids():
    for old, new in [((7, 7), (10, 12)), ((14, 14), (24, 24)), ((14, 14), (9, 11)), ((5, 8), (5, 8))]:
        weight = torch.zeros(old[0], old[1] // 2 + 1, 2, 2)
        weight[..., 0] = torch.tensor([2.0, -1.0])
        found = resample_filter(weight, old, new)
        torch.testing.assert_close(found, weight[:1, :1].expand(new[0], new[1] // 2 + 1, 2, 2))


@pytest.mark.parametrize("build", [small, small_hierarchical])
def test_is_what_the_paper_says_written_once_more(build):
    """Embedding, blocks x + gamma MLP(LN(filter(LN x))), mean of the normalised tokens; in float64."""
    model = build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = dict(model.named_parameters())

    def norm(x, name):
        deviation = x - x.mean(-1, keepdim=True)
        scaled = deviation / (deviation.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def block(x, name):
        y = norm(x, f"{name}.norm1")
        kernel = torch.fft.irfft2(torch.view_as_complex(w[f"{name}.filter.complex_weight"]), s=x.shape[1:3], dim=(0, 1))
        spectrum = torch.fft.fft2(y, dim=(1, 2)) * torch.fft.fft2(kernel, dim=(0, 1))
        y = norm(torch.fft.ifft2(spectrum, dim=(1, 2)).real, f"{name}.norm2")
        y = torch.nn.functional.gelu(y @ w[f"{name}.mlp.fc1.weight"].T + w[f"{name}.mlp.fc1.bias"])
        y = y @ w[f"{name}.mlp.fc2.weight"].T + w[f"{name}.mlp.fc2.bias"]
        return x + y * w.get(f"{name}.gamma", 1.0)

    depths = (1, 2, 1) if model.hierarchical else (2,)
    x = images
    for stage, depth in enumerate(depths):
        embed, blocks = (
            (f"patch_embed.{stage}", f"blocks.{stage}.") if model.hierarchical else ("patch_embed", "blocks.")
        )
        weight = w[f"{embed}.proj.weight"]
        x = torch.conv2d(x, weight, w[f"{embed}.proj.bias"], stride=weight.shape[-1]).permute(0, 2, 3, 1)
        if stage == 0:
            x = x + w["pos_embed"].reshape(1, *x.shape[1:])
        for index in range(depth):
            x = block(x, f"{blocks}{index}")
        x = x.permute(0, 3, 1, 2)
    expected = norm(x.permute(0, 2, 3, 1), "norm").mean((1, 2)) @ w["head.weight"].T + w["head.bias"]
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("gfnet_tiny", {"dims": (16,), "depths": (3,)}), ("gfnet_h_tiny", {"dims": (8, 12, 16), "depths": (1, 2, 1)})],
)
def test_follows_the_protocol_of_timm(name, sizes, protocol):
    protocol(name, img_size=64, **sizes).check()


@pytest.mark.parametrize(
    ("name", "gamma", "rate"),
    [
        ("gfnet_tiny", None, 0),
        ("gfnet_xs", None, 0),
        ("gfnet_small", None, 0.15),
        ("gfnet_base", None, 0.25),
        ("gfnet_h_tiny", 1e-3, 0.1),
        ("gfnet_h_small", 1e-5, 0.2),
        ("gfnet_h_base", 1e-6, 0.4),
    ],
)
def test_starts_with_the_published_layer_scale_and_stochastic_depth(name, gamma, rate):
    sizes = {"dims": (4, 4, 4, 4), "depths": (1, 1, 2, 1)} if gamma else {"dims": (4,), "depths": (5,)}
    blocks = [each for each in timm.create_model(name, img_size=32, **sizes).modules() if isinstance(each, Block)]
    assert [block.drop_path.drop_prob for block in blocks] == pytest.approx(
        [rate * index / (len(blocks) - 1) for index in range(len(blocks))]
    )
    for block in blocks:
        assert block.gamma is None if gamma is None else (block.gamma == gamma).all()


def test_starts_with_the_published_distributions():
    torch.manual_seed(0)
    model = timm.create_model("gfnet_tiny")
    block = model.blocks[3]
    for weight in (block.mlp.fc1.weight, block.mlp.fc2.weight, model.head.weight, model.pos_embed):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert weight.abs().max() > 0.05
    assert block.filter.complex_weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not block.mlp.fc1.bias.any()
    assert not model.head.bias.any()
    bound = (3 * 16 * 16) ** -0.5  # torch's own convolution
    assert model.patch_embed.proj.weight.abs().max().item() == pytest.approx(bound, rel=1e-2)


def test_says_both_sizes_for_images_of_another_size():
    with pytest.raises(ValueError, match="64 x 64 pixels, got 48 x 64"):
        small()(torch.rand(1, 3, 48, 64))
    with pytest.raises(ValueError, match="16 at least, got 12"):
        small_hierarchical(img_size=12)
    model = small_hierarchical()
    with pytest.raises(ValueError, match=r"16 at least, got \(12, 64\)"):
        model.set_input_size((12, 64))
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 5)  # as it was
    with pytest.raises(ValueError, match="as many of each"):
        small(depths=(1, 2))
    assert small(img_size=(32, 48))(torch.rand(1, 3, 32, 48)).shape == (1, 5)
    assert small_hierarchical(img_size=(48, 80))(torch.rand(1, 3, 48, 80)).shape == (1, 5)


@pytest.mark.parametrize("build", [small, small_hierarchical])
def test_reads_published_files(build):
    """Defect of the published filter: it returned None."""
    model = build()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for key in [key for key in state if key.startswith("patch_embed") and key.endswith("weight")]:
        state[key] = state[key].flatten(1)  # as linear layers, in old files
    fresh = build(num_classes=5)
    for parameter in fresh.parameters():
        torch.nn.init.zeros_(parameter)
    fresh.load_state_dict(gfnet.checkpoint_filter({"model": state, "epoch": 3}, fresh))
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="not the weights of a GFNet"):
        gfnet.checkpoint_filter({"fc.weight": torch.zeros(2, 2)}, fresh)


@pytest.mark.parametrize("build", [small, small_hierarchical])
@pytest.mark.parametrize(("old", "new"), [(64, 96), ((96, 160), (48, 64)), ((96, 64), 80)])
def test_files_of_other_sizes_are_resized(build, old, new):
    source, target = build(img_size=old), build(img_size=new)
    fitted = gfnet.checkpoint_filter(source.state_dict(), target)
    target.load_state_dict(fitted)
    table = source.pos_embed.reshape(1, *source._embeds[0].grid_size, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(table, target._embeds[0].grid_size, mode="bilinear")
    torch.testing.assert_close(target.pos_embed, expected.permute(0, 2, 3, 1).flatten(1, 2))
    pairs = list(zip(source.modules(), target.modules(), strict=True))
    filters = [(one, other) for one, other in pairs if isinstance(one, GlobalFilter)]
    assert len(filters) == sum((1, 2, 1) if target.hierarchical else (2,))
    for one, other in filters:
        torch.testing.assert_close(other.complex_weight, resample_filter(one.complex_weight, one.grid, other.grid))
    source.set_input_size(new)
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())
    images = torch.rand(1, 3, *target._embeds[0].img_size)
    torch.testing.assert_close(source(images), target(images), rtol=0, atol=0)


def test_pretrained_files_go_through_the_filter(tmp_path):
    torch.manual_seed(1)
    source = timm.create_model("gfnet_tiny", img_size=64)
    torch.save({"model": source.state_dict()}, tmp_path / "gfnet.pth")
    overlay = {"file": str(tmp_path / "gfnet.pth")}
    loaded = timm.create_model("gfnet_tiny", pretrained=True, img_size=96, pretrained_cfg_overlay=overlay)
    weight = source.blocks[0].filter.complex_weight
    torch.testing.assert_close(loaded.blocks[0].filter.complex_weight, resample_filter(weight, (4, 4), (6, 6)))
    torch.testing.assert_close(loaded.head.weight, source.head.weight, rtol=0, atol=0)


def test_gives_tokens_normed_or_not():
    model, images = small(), torch.rand(2, 3, 64, 64)
    output, maps = model.forward_intermediates(images, norm=True)
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), output)
    tokens = model.forward_intermediates(images, output_fmt="NLC", intermediates_only=True)
    assert [tuple(each.shape) for each in tokens] == [(2, 16, 8)] * 2
    with pytest.raises(ValueError, match="NCHW or NLC"):
        model.forward_intermediates(images, output_fmt="NHWC")
    with pytest.raises(ValueError, match="plain network only"):
        small_hierarchical().forward_intermediates(images, norm=True)


@pytest.mark.parametrize("build", [small, small_hierarchical])
def test_exported_networks_take_any_number_of_images(build):
    model, images = build(), torch.rand(3, 3, 64, 64)
    batch = torch.export.Dim("batch", min=2, max=8)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images[:2]), model(images[:2]))


@pytest.mark.parametrize("build", [small, small_hierarchical])
def test_pruned_networks_give_the_same_maps(build):
    model, images = build(), torch.rand(2, 3, 64, 64)
    _, maps = model.forward_intermediates(images)
    assert model.prune_intermediate_layers([0, 1], prune_norm=True) == [0, 1]
    torch.testing.assert_close(model.forward_intermediates(images, intermediates_only=True), maps[:2])
    assert model.num_features == maps[1].shape[1]
    assert model(images).shape == (2, maps[1][0, 0].numel(), maps[1].shape[1])
    model.reset_classifier(3, "avg")
    assert model(images).shape == (2, 3)
    with pytest.raises(ValueError, match="global_pool='max'"):
        model.reset_classifier(3, "max")


def test_layers_are_sorted_by_depth():
    model = small_hierarchical()
    layers = [
        sorted({name.rpartition(".")[0] for name in names})
        for names in group_parameters(model, model.group_matcher()).values()
    ]
    assert layers[0] == ["", "patch_embed.0.proj"]
    assert [
        any(name.startswith(f"patch_embed.{stage}") for name in layers[row]) for stage, row in ((1, 2), (2, 4))
    ] == [True] * 2
    assert len(layers) == 1 + 4 + 1
    assert len(group_parameters(model, model.group_matcher(coarse=True))) == 1 + 3 + 1


def test_is_built_with_its_normalisation():
    model = create_model("gfnet_h_tiny", img_size=32, num_classes=4).eval()
    assert model.normalize.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 4)
