"""ResNets with other activations against stored numbers and against timm's own with an argument."""

import pytest
import timm
import torch
from robust_models import create_model, resnet_activations

PUBLISHED = {
    "resnet50_gelu": ("resnet50", "gelu", 25_557_032),
    "resnet50_silu": ("resnet50", "silu", 25_557_032),
    "resnet152_gelu": ("resnet152", "gelu", 60_192_808),
    "wide_resnet50_2_gelu": ("wide_resnet50_2", "gelu", 68_883_240),
}
SMALL = {"layers": (1, 1, 1, 1), "channels": (4, 8, 12, 16), "num_classes": 5}


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_the_published_tensors_and_no_other_activation(name):
    base, activation, parameters = PUBLISHED[name]
    with torch.device("meta"):
        model, plain = timm.create_model(name), timm.create_model(base)
    assert sum(each.numel() for each in model.parameters()) == parameters
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in plain.state_dict().items()}
    kinds = [type(each).__name__.lower() for each in model.modules() if "activation" in type(each).__module__]
    assert len(kinds) == 1 + 3 * sum(len(getattr(plain, f"layer{stage}")) for stage in range(1, 5))
    assert set(kinds) == {activation}
    assert timm.models.model_entrypoint(name) is getattr(resnet_activations, name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_answers_like_timms_network_with_the_argument(name):
    base, activation, _ = PUBLISHED[name]
    torch.manual_seed(0)
    model = timm.create_model(name, **SMALL).eval()
    same, relu = timm.create_model(base, act_layer=activation, **SMALL).eval(), timm.create_model(base, **SMALL).eval()
    images = torch.rand(2, 3, 64, 64)
    for other in (same, relu):
        other.load_state_dict(model.state_dict())
    torch.testing.assert_close(same(images), model(images), rtol=0, atol=0)
    assert not torch.allclose(relu(images), model(images), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.shared_data
def test_answers_as_published(golden):
    golden("resnet50_gelu").check(timm.create_model("resnet50_gelu"))


def test_the_network_for_small_images_has_a_stem_that_keeps_their_size():
    with torch.device("meta"):
        model, plain = timm.create_model("resnet50_32"), timm.create_model("resnet50", num_classes=10)
        assert sum(each.numel() for each in model.parameters()) == 23_520_842
        assert timm.create_model("resnet50_32", num_classes=100).fc.out_features == 100
    shapes, others = ({key: value.shape for key, value in each.state_dict().items()} for each in (model, plain))
    assert list(shapes) == list(others)
    assert {key for key in shapes if shapes[key] != others[key]} == {"conv1.weight"}
    small = timm.create_model("resnet50_32", **SMALL).eval()
    maps = small.forward_intermediates(torch.rand(1, 3, 32, 32), intermediates_only=True)
    assert [each.shape[-1] for each in maps] == [32, 32, 16, 8, 4]
    assert [32 // info["reduction"] for info in small.feature_info] == [32, 32, 16, 8, 4]


def test_the_small_stem_is_one_convolution_norm_and_relu():
    torch.manual_seed(0)
    model = timm.create_model("resnet50_32", **SMALL).double().eval()
    std = model.conv1.weight.std().item()
    assert std == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)  # Kaiming's, by the outputs
    seen = {}
    model.layer1.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    model(images)
    expected = torch.relu(model.bn1(torch.conv2d(images, model.conv1.weight, padding=1)))
    torch.testing.assert_close(seen["x"], expected, rtol=1e-12, atol=1e-12)


def test_follows_the_protocol_of_timm(protocol):
    protocol("resnet50_32", layers=(1, 1, 1, 1), channels=(4, 8, 12, 16), act_layer="gelu").check()


def test_is_built_with_its_normalisation():
    assert create_model("resnet50_32").normalize.std.flatten().tolist() == pytest.approx([0.2471, 0.2435, 0.2616])
    assert create_model("resnet50_silu").normalize.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert not create_model("resnet50_gelu").normalize.mean.any()  # trained on pixels
