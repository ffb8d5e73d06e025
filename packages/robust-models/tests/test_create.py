"""Building models by name."""

import socket

import pytest
import safetensors.torch
import timm
import torch
from robust_models import NormalizedModel, create_model, get_normalization
from timm.layers.drop import DropPath


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
        ("resnet18", {"drop_path_rate": -0.1}, r"drop_path_rate must lie in \[0, 1\), got -0.1"),
        ("vgg11", {"drop_path_rate": 0.1}, "vgg11 does not take drop_path_rate: leave it out"),
    ],
)
def test_says_what_is_wrong_with_a_request(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)


def rates_of_paths(model):
    return [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]


def test_a_rate_of_0_is_0_and_none_the_models_own():
    small = {"img_size": 32, "model_args": {"depths": (2,), "dims": (16,)}}
    own = create_model("gfnet_base", **small)  # published with stochastic depth
    assert rates_of_paths(own)[-1] == pytest.approx(0.25)
    none = create_model("gfnet_base", drop_path_rate=0.0, **small)
    assert not any(rates_of_paths(none))


def test_models_without_a_rate_have_the_rate_0():
    assert create_model("small_cnn_8", drop_path_rate=0.0, drop_rate=0.1).unwrap().drop_rate == 0.1
    assert create_model("legacy_seresnet18", drop_path_rate=0.0, num_classes=2).num_classes == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "small_cnn_8",
            "weights exist for small_cnn_8 in timm, or in the zoo: load_weights takes a file",
        ),
        ("gfnet_h_tiny", r'in timm, but in the zoo: use pretrained\("gfnet/gfnet_h_tiny"\)$'),
        ("rvt_small_plus", r'in the zoo: use pretrained\(".*"\), .*, pretrained\(".*"\) or one of 2 more$'),
        ("wrn_34_15", r'in the zoo: use pretrained\("[^"]*Sridhar2021Robust_34_15"\)$'),
        ("wrn_106_16_dm_silu", r'in the zoo: use pretrained\("[^"]*"\)$'),
        ("wrn_106_16_dm", "or in the zoo"),
        ("preact_resnet18_dm_silu", r'use (pretrained\("[^"]*"\)(, )?){3}$'),
    ],
)
def test_weights_that_timm_lacks_are_named_where_the_zoo_has_them(name, message, monkeypatch):
    monkeypatch.setattr(torch.nn.init, "kaiming_normal_", lambda tensor, **_: tensor)  # large networks, not used
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model(name, pretrained=True)


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of the Hugging Face hub and of torch.hub, and no network by our own setting."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("ROBUST_MODELS_OFFLINE", "1")
    return tmp_path


def put(folder, commit="1" * 40):
    """A folder of a repository of the hub, as its library lays it out."""
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


def test_without_the_network_weights_come_from_the_cache_of_the_hub(caches):
    """Also of a model for which timm knows a file in another layout, too."""
    tagged = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    with pytest.raises(FileNotFoundError, match=f"weights of {tagged} are not in timm's cache"):
        create_model(tagged, pretrained=True)
    torch.manual_seed(1)
    published = timm.create_model("vit_tiny_patch16_224").state_dict()
    snapshot = put(caches / "hub" / f"models--timm--{tagged}")
    safetensors.torch.save_file(published, snapshot / "model.safetensors")
    for name in ("vit_tiny_patch16_224", tagged):
        model = create_model(name, pretrained=True).unwrap()
        assert all(torch.equal(model.state_dict()[key], value) for key, value in published.items())


def test_without_the_network_weights_come_from_the_cache_of_torch(caches):
    with pytest.raises(FileNotFoundError, match="are not in timm's cache"):
        create_model("legacy_seresnet18", pretrained=True)
    torch.manual_seed(1)
    published = timm.create_model("legacy_seresnet18").state_dict()
    torch.save(published, caches / "torch" / "hub" / "checkpoints" / "seresnet18-4bb0ce65.pth")
    model = create_model("legacy_seresnet18", pretrained=True).unwrap()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in published.items())


def test_without_the_network_nothing_is_asked_of_the_hub(caches):
    with pytest.raises(FileNotFoundError, match="weights of hf-hub:somebody/something are not in timm's cache"):
        create_model("hf-hub:somebody/something", pretrained=True)
    assert create_model("test_vit").num_classes == 1000
    with pytest.raises(ValueError, match="no pre-trained weights exist for small_cnn_8"):
        create_model("small_cnn_8", pretrained=True)


def test_an_error_inside_of_a_constructor_is_not_hidden():
    with pytest.raises(TypeError, match="int"):
        create_model("resnet18", model_args={"layers": 3})


@pytest.mark.parametrize("name", ["wrn_28_10_dm_silu", "rvt_tiny"])
def test_models_are_built_on_the_meta_device(name):
    with torch.device("meta"):
        model = create_model(name)
    assert all(each.is_meta for each in model.parameters())
