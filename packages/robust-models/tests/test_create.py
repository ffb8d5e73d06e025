"""Building models by name."""

import socket

import pytest
import timm
import torch
from robust_models import NormalizedModel, create_model, get_normalization


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a constructor touched the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "small_cnn_32"])
def test_takes_images_in_the_unit_box_and_has_the_normalisation_of_timm_inside(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=7).eval()
    torch.manual_seed(0)
    bare = timm.create_model(name, num_classes=7).eval()
    assert isinstance(model, NormalizedModel)
    size = bare.pretrained_cfg["input_size"]
    images = torch.rand(2, *size)
    normalize = timm.data.create_transform(
        input_size=size, mean=bare.pretrained_cfg["mean"], std=bare.pretrained_cfg["std"]
    )
    expected = bare(torch.stack([normalize.transforms[-1](image) for image in images]))
    torch.testing.assert_close(model(images), expected)


def test_the_same_seed_gives_the_same_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create_model("small_cnn_8").state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_without_normalisation_it_is_the_bare_model():
    model = create_model("resnet10t", normalize=False)
    assert get_normalization(model) is None
    assert type(model) is type(timm.create_model("resnet10t"))


@pytest.mark.parametrize("in_chans", [1, 2, 4])
def test_other_channels_follow_the_weights_that_timm_adapts(in_chans):
    """One channel is the mean of all, more repeat them, as timm spreads the weights of the first convolution."""
    model = create_model("resnet10t", in_chans=in_chans)
    mean, std = get_normalization(model)
    original = timm.create_model("resnet10t").pretrained_cfg
    if in_chans == 1:
        assert mean == pytest.approx((sum(original["mean"]) / 3,))
        assert std == pytest.approx((sum(original["std"]) / 3,))
    else:
        assert mean == pytest.approx([original["mean"][index % 3] for index in range(in_chans)])
        assert std == pytest.approx([original["std"][index % 3] for index in range(in_chans)])
    assert model.eval()(torch.rand(1, in_chans, 64, 64)).shape == (1, 1000)


def test_rates_sizes_and_further_arguments_reach_the_model():
    model = create_model(
        "vit_tiny_patch16_224", img_size=32, drop_rate=0.1, drop_path_rate=0.2, model_args={"depth": 2}
    )
    bare = model.unwrap()
    assert len(bare.blocks) == 2
    assert bare.patch_embed.img_size == (32, 32)
    assert bare.head_drop.p == 0.1
    assert bare.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet5O", {}, "did you mean resnet50"),
        ("small_cnn", {}, "did you mean small_cnn_8"),
        ("zzzzzz", {}, "timm.list_models"),
        ("resnet18.nonsense", {}, "has no tag 'nonsense': it has a1_in1k"),
        ("hf-hub:somebody/something", {}, "use pretrained=True"),
        ("resnet18", {"img_size": 32}, "does not take img_size: leave it out"),
        ("resnet18", {"model_args": {"colour": 1}}, "does not take colour"),
        ("resnet18", {"model_args": {"num_classes": 1}, "num_classes": 2}, "give it once"),
        ("resnet18", {"drop_rate": 1.5}, r"drop_rate must lie in \[0, 1\), got 1.5"),
        ("small_cnn_8", {"pretrained": True}, "no pre-trained weights exist"),
    ],
)
def test_says_what_is_wrong_with_a_request(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)


def test_an_error_inside_of_a_constructor_is_not_hidden():
    with pytest.raises(TypeError, match="int"):
        create_model("resnet18", model_args={"layers": 3})


@pytest.mark.parametrize("name", ["wrn_28_10_dm_silu", "rvt_tiny"])
def test_models_are_built_on_the_meta_device(name):
    with torch.device("meta"):
        model = create_model(name)
    assert all(each.is_meta for each in model.parameters())
