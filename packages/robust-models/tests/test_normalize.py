"""The normalisation layer and the model around it."""

import copy
import re

import pytest
import timm
import torch
from robust_models import Normalize, NormalizedModel, create_model, get_normalization
from timm.models._features import FeatureGetterNet
from timm.optim import create_optimizer_v2
from torch import nn

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("resnet10t", num_classes=5).eval()


def test_maps_every_channel_by_its_own_mean_and_std(images):
    normalized = Normalize(MEAN, STD).double()(images.double())
    for channel in range(3):
        expected = (images[:, channel].double() - Normalize(MEAN, STD).double().mean[0, channel]) / STD[channel]
        torch.testing.assert_close(normalized[:, channel], expected, rtol=1e-7, atol=0)


def test_undoing_the_step_gives_the_images_back(images):
    layer = Normalize(MEAN, STD)
    torch.testing.assert_close(layer(images) * layer.std + layer.mean, images)


@pytest.mark.parametrize(
    "kind",
    [
        tuple,
        torch.tensor,
        lambda values: torch.tensor(values).view(1, 3, 1, 1),
        lambda values: pytest.importorskip("numpy").array(values),
        lambda values: iter(torch.tensor(values)),
    ],
    ids=["tuple", "tensor", "buffer", "array", "iterator"],
)
def test_takes_values_as_sequence_tensor_or_array(kind):
    layer, expected = Normalize(kind(MEAN), kind(STD)), Normalize(MEAN, STD)
    assert torch.equal(layer.mean, expected.mean)
    assert torch.equal(layer.std, expected.std)


@pytest.mark.parametrize(
    "value", [0.5, torch.tensor(0.5), "0.5", None, [[0.5]]], ids=["float", "tensor", "string", "None", "nested"]
)
def test_refuses_what_is_not_one_number_per_channel(value):
    with pytest.raises(TypeError, match=r"mean takes one number per channel, got .*: \[0\.5\] for grey images"):
        Normalize(value, STD)
    with pytest.raises(TypeError, match=r"std takes one number per channel"):
        Normalize(MEAN, value)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (torch.full((2, 3, 4, 4), 255, dtype=torch.uint8), TypeError, r"floats in \[0, 1\], got .*: pass images / 255"),
        (torch.ones(2, 1, 4, 4), ValueError, r"\(N, 3, H, W\), got the shape \[2, 1, 4, 4\]"),
        (torch.ones(2, 4, 4, 3), ValueError, r"got the shape \[2, 4, 4, 3\]"),
        (torch.ones(3, 4, 4), ValueError, r"got the shape \[3, 4, 4\]"),
        (torch.ones(2, 3, 4, 4, 4), ValueError, r"got the shape \[2, 3, 4, 4, 4\]"),
    ],
    ids=["uint8", "grey", "channels last", "no batch", "volumes"],
)
def test_refuses_images_that_would_silently_give_garbage(wrong, error, message):
    with pytest.raises(error, match=message):
        Normalize(MEAN, STD)(wrong)
    with pytest.raises(error, match=message):
        NormalizedModel(nn.Flatten(), MEAN, STD)(wrong)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.5, 0.5], "one value per channel"),
        ([], [], "one value per channel"),
        ([0.5], [0.0], "positive"),
        ([float("nan")], [1.0], "finite"),
    ],
)
def test_refuses_values_that_make_no_sense(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalize(mean, std)


def test_is_the_wrapped_model_on_normalised_images(model, images):
    bare = model.unwrap()
    expected = bare((images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))
    torch.testing.assert_close(model(images), expected, rtol=0, atol=0)


def test_layout_of_the_state_dict_is_the_documented_one(model):
    keys = list(model.state_dict())
    assert keys[:2] == ["normalize.mean", "normalize.std"]
    assert keys[2:] == [f"model.{key}" for key in model.unwrap().state_dict()]
    assert model.state_dict()["normalize.mean"].shape == (1, 3, 1, 1)


def test_forwards_the_protocol_of_timm(model, images):
    bare, normalized = model.unwrap(), model.normalize(images)
    torch.testing.assert_close(model.forward_features(images), bare.forward_features(normalized), rtol=0, atol=0)
    torch.testing.assert_close(model.forward_head(model.forward_features(images)), model(images), rtol=0, atol=0)
    hidden = model.forward_head(model.forward_features(images), pre_logits=True)
    assert hidden.shape == (2, model.head_hidden_size)
    maps = model.forward_intermediates(images, intermediates_only=True)
    for ours, theirs in zip(maps, bare.forward_intermediates(normalized, intermediates_only=True), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert (model.num_classes, model.num_features) == (5, bare.num_features)
    assert model.feature_info is bare.feature_info
    assert model.get_classifier() is bare.fc


def test_a_new_classifier_changes_the_number_of_logits(model, images):
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    assert model.num_classes == 7
    model.reset_classifier(0, "max")
    assert model(images).shape == (2, model.num_features)


def test_a_loader_made_from_its_configuration_does_not_normalise_again(model):
    config = timm.data.resolve_data_config({}, model=model)
    assert config["mean"] == (0.0, 0.0, 0.0)
    assert config["std"] == (1.0, 1.0, 1.0)
    assert config["input_size"] == model.unwrap().pretrained_cfg["input_size"]
    assert model.default_cfg == model.pretrained_cfg


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "convnext_atto"])
def test_layer_wise_learning_rates_of_timm_agree_with_those_of_the_bare_model(name):
    model = create_model(name, num_classes=2)
    rates = {}
    for prefix, network in (("model.", model), ("", model.unwrap())):
        names = {id(parameter): key for key, parameter in network.named_parameters()}
        optimizer = create_optimizer_v2(network, "sgd", lr=0.1, weight_decay=0.05, layer_decay=0.7)
        rates[prefix] = {
            names[id(parameter)].removeprefix(prefix): (group["lr_scale"], group["weight_decay"])
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
    assert rates["model."] == rates[""]
    assert len({scale for scale, _ in rates[""].values()}) > 2


class Grouped(nn.Module):
    """A network whose pattern of groups has the start of a name, a negated class and an escaped circumflex."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def group_matcher(self, coarse=False):
        return {"stem": r"^none\^", "blocks": r"^blocks\.([^.]+)\."}


def test_only_the_start_of_a_name_is_changed_in_the_patterns_of_groups():
    model = NormalizedModel(Grouped(), [0.5], [0.5])
    matcher = model.group_matcher()
    assert re.match(matcher["blocks"], "model.blocks.1.weight").group(1) == "1"
    assert not re.match(matcher["blocks"], "blocks.1.weight")
    assert re.match(matcher["stem"], "model.none^")
    assert len(timm.models.group_parameters(model, matcher)) == 2


@pytest.mark.parametrize(
    ("name", "size", "prunes"),
    [("resnet10t", 64, True), ("vit_tiny_patch16_224", 64, True), ("small_cnn_32", 32, False)],
)
def test_the_feature_extractor_of_timm_works_on_pixels(name, size, prunes):
    torch.manual_seed(0)
    model = create_model(name, img_size=size if name.startswith("vit") else None).eval()
    images = torch.rand(2, 3, size, size)
    bare = copy.deepcopy(model.unwrap())
    before = len(model.state_dict())
    expected = bare.forward_intermediates(model.normalize(images), indices=[0, 1], intermediates_only=True)
    features = FeatureGetterNet(model, out_indices=[0, 1])
    for ours, theirs in zip(features(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert features.feature_info.channels() == [feature.shape[1] for feature in expected]
    assert (len(model.state_dict()) < before) == prunes
    assert hasattr(model, "prune_intermediate_layers") == prunes


def test_an_input_size_can_be_set_where_the_wrapped_model_can():
    model = create_model("vit_tiny_patch16_224", num_classes=2).eval()
    model.set_input_size(img_size=(64, 32))
    assert model(torch.rand(1, 3, 64, 32)).shape == (1, 2)
    assert not hasattr(create_model("resnet10t"), "set_input_size")


def test_gradient_checkpointing_reaches_the_wrapped_model(model):
    model.set_grad_checkpointing()
    assert model.unwrap().grad_checkpointing
    model.set_grad_checkpointing(False)
    assert not model.unwrap().grad_checkpointing


def test_is_never_wrapped_twice(model):
    with pytest.raises(ValueError, match="already normalises"):
        NormalizedModel(model, MEAN, STD)
    with pytest.raises(ValueError, match="already normalises"):
        NormalizedModel(nn.Sequential(Normalize(MEAN, STD), nn.Conv2d(3, 3, 1)), MEAN, STD)


def test_says_what_normalisation_a_model_has(model):
    mean, std = get_normalization(model)
    assert mean == pytest.approx(MEAN)
    assert std == pytest.approx(STD)
    assert get_normalization(model.unwrap()) is None


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_strict_range_refuses_images_outside_of_the_box(bad):
    model = NormalizedModel(nn.Flatten(), [0.5], [0.5], strict_range=True)
    images = torch.rand(1, 1, 2, 2)
    assert model(images).shape == (1, 4)
    images[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        model(images)


@pytest.mark.parametrize("method", ["forward_features", "forward_intermediates"])
def test_strict_range_holds_for_features_too(method):
    model = create_model("small_cnn_8")
    model.strict_range = True
    getattr(model, method)(torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        getattr(model, method)(torch.full((1, 1, 8, 8), 1.1))


def test_survives_copying_exporting_and_a_change_of_dtype(model, images):
    expected = model(images)
    torch.testing.assert_close(copy.deepcopy(model)(images), expected, rtol=0, atol=0)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), expected)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), expected)
    torch._dynamo.reset()
    torch.testing.assert_close(model.double()(images.double()).float(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_can_be_scripted(images):
    torch.manual_seed(0)
    model = create_model("small_cnn_32").eval()
    torch.testing.assert_close(torch.jit.script(model)(images), model(images))


def test_builds_on_the_meta_device():
    with torch.device("meta"):
        model = create_model("small_cnn_8")
    assert model.normalize.mean.is_meta
    assert "channels=1" in repr(model.normalize)


def test_the_attention_layers_of_the_model_are_found():
    model = create_model("rvt_tiny_plus", img_size=64, model_args={"depths": (1, 1), "paas_blocks": 1})
    assert model.get_attention_modules() == model.unwrap().get_attention_modules()
    assert not hasattr(create_model("resnet18"), "get_attention_modules")
