"""BlurPool: stored cases, timm's own anti-aliased networks as the oracle, sizes, shifts."""

import pytest
import timm
import torch
from robust_models.layers.blur import BlurPool2d, convert_blurpool
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn


@pytest.mark.shared_data
@pytest.mark.parametrize("size", [3, 5])
def test_the_stored_numbers(golden, named, size):
    case = golden("modules").stored["cases"][f"blurpool{size}"]
    x = 2 * torch.from_numpy(named("1:x", 4 * 6 * 7 * 9)).view(4, 6, 7, 9) + 0.5
    expected = torch.tensor(case["output"]["data"], dtype=torch.float64).view(case["output"]["shape"])
    found = BlurPool2d(6, filt_size=size, stride=case["stride"], pad_mode=case["pad"]).double()(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def twins(plain, blurred):
    """The two networks with the same weights, in eval mode."""
    torch.manual_seed(0)
    first, second = (timm.create_model(name, num_classes=5) for name in (plain, blurred))
    state = first.state_dict()
    for key, entry in state.items():
        if key.endswith("running_var"):
            entry.uniform_(0.5, 1.5)
    second.load_state_dict(state)
    return first.eval(), second.eval(), list(state)


@pytest.mark.parametrize(
    ("plain", "blurred", "exclude"),
    [
        ("resnet18", "resnetblur18", "^conv1$"),
        ("resnet50", "resnetblur50", "^conv1$"),
        ("efficientnet_b0", "efficientnet_blur_b0", "^conv_stem$"),
    ],
)
def test_a_converted_network_is_the_anti_aliased_one_of_timm(plain, blurred, exclude):
    model, expected, keys = twins(plain, blurred)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = model(x)
    convert_blurpool(model, pad_mode="constant" if plain.startswith("eff") else "reflect", exclude=exclude)
    assert torch.equal(model(x), expected(x))
    assert not torch.equal(model(x), logits)
    assert list(model.state_dict()) == keys
    if plain == "resnet50":
        assert len(keys) == 320


LAYERS = {
    "conv": lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1),
    "even conv": lambda: nn.Conv2d(2, 4, 2, stride=2),
    "groups": lambda: nn.Conv2d(2, 2, 5, stride=2, padding=2, groups=2),
    "dilation": lambda: nn.Conv2d(2, 4, 3, stride=2, padding=2, dilation=2),
    "same conv": lambda: Conv2dSame(2, 4, 3, stride=2),
    "even pool": lambda: nn.MaxPool2d(2, 2),
    "pool": lambda: nn.MaxPool2d(3, (2, 2), padding=1),
    "same pool": lambda: MaxPool2dSame(3, 2),
}


@pytest.mark.parametrize("side", [9, 10, 11, 16])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_keeps_its_key_and_its_size_and_is_blurred(kind, side, size):
    torch.manual_seed(0)
    layer, x = LAYERS[kind](), torch.randn(2, 2, side, side)
    plain, keys = layer(x), list(layer.state_dict())
    blurred = convert_blurpool(nn.Sequential(layer), filt_size=size)
    assert blurred[0] is layer
    assert blurred(x).shape == plain.shape
    assert [key.removeprefix("0.") for key in blurred.state_dict()] == keys
    dense = layer.forward(x)  # without the blur: the layer of stride 1
    binomial = torch.tensor({3: [1.0, 2, 1], 5: [1.0, 4, 6, 4, 1]}[size])
    kernel = binomial.outer(binomial) / binomial.sum() ** 2
    padded = nn.functional.pad(dense, [size // 2] * 4, mode="reflect")
    windows = padded.unfold(2, size, 2).unfold(3, size, 2)
    torch.testing.assert_close(blurred(x), torch.einsum("nchwij,ij->nchw", windows, kernel))


def test_a_constant_image_stays_the_same():
    conv = nn.Conv2d(2, 3, 3, stride=2)
    x = torch.ones(1, 2, 15, 15) * torch.tensor([0.3, -2.0]).view(1, 2, 1, 1)
    plain = conv(x)
    torch.testing.assert_close(convert_blurpool(conv)(x), plain)
    pool = nn.MaxPool2d(3, 2, padding=1)
    plain = pool(x)
    torch.testing.assert_close(convert_blurpool(pool)(x), plain)


def test_shifts_change_less():
    """The claim of the paper: of what varies in the output, less depends on where the subsampling starts."""
    x = torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    shares = []
    for layer in (nn.MaxPool2d(3, 2, padding=1), convert_blurpool(nn.MaxPool2d(3, 2, padding=1))):
        first, second = (layer(each)[..., 2:-2, 2:-2] for each in (x, x.roll(1, -1)))
        shares.append(((first - second).square().mean() / first.var()).item())
    assert shares[1] < 0.6 * shares[0]


def test_what_is_converted():
    model = convert_blurpool(timm.create_model("resnet18"))
    layers = ("conv1", "maxpool", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1")
    assert model.robust_conversions[0].layers == layers
    assert isinstance(model.layer2[0].aa, BlurPool2d)  # behind the activation
    assert isinstance(model.conv1.blur, BlurPool2d)
    assert model.layer2[0].downsample[0].stride == (2, 2)  # a 1 x 1 shortcut
    assert convert_blurpool(model).robust_conversions[0].layers == layers
    assert len(model.robust_conversions) == 1
    only = convert_blurpool(timm.create_model("resnet18"), mode="max_only")
    assert only.robust_conversions[0].layers == ("maxpool",)
    assert only.layer2[0].conv1.stride == (2, 2)
    next_to_last = convert_blurpool(timm.create_model("convnext_atto"))
    assert next_to_last.robust_conversions[0].layers == tuple(f"stages.{stage}.downsample.1" for stage in (1, 2, 3))


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match="no max-pool or convolution of stride 2 to convert"):
        convert_blurpool(timm.create_model("vit_tiny_patch16_224"))
    for options in ({"filt_size": 4}, {"filt_size": 1}, {"mode": "conv_only"}):
        with pytest.raises(ValueError, match="filt_size must be an odd number from 3 and mode one of"):
            convert_blurpool(nn.MaxPool2d(2), **options)


def test_the_blur_has_the_type_of_the_model():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.Conv2d(3, 3, 3, stride=2)).double()
    assert convert_blurpool(model)(torch.randn(1, 2, 16, 16).double()).dtype == torch.float64
