"""CrossNorm and SelfNorm in residual blocks: where they act, when, and under which keys."""

import pytest
import timm
import torch
from robust_models.layers.cnsn import CNSN, convert_cnsn, revert_cnsn
from robust_models.layers.cross_norm import CrossNorm, crossnorm_active
from robust_models.layers.self_norm import SelfNorm
from timm.layers import DropPath
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

KINDS = [("basic", False), ("basic", True), ("bottleneck", False), ("bottleneck", True)]


def block(kind, strided, **options):
    torch.manual_seed(0)
    if not strided:
        return {"basic": BasicBlock(8, 8, **options), "bottleneck": Bottleneck(8, 2, **options)}[kind].eval()
    shortcut = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
    made = {"basic": BasicBlock(4, 8, 2, shortcut, **options), "bottleneck": Bottleneck(4, 2, 2, shortcut, **options)}
    return made[kind].eval()


def parts(made):
    """The branch, the shortcut and the last activation of a block, computed by hand."""
    names = ["conv1", "bn1", "act1", "aa", "conv2", "bn2"]
    if isinstance(made, Bottleneck):
        names = ["conv1", "bn1", "act1", "conv2", "bn2", "act2", "aa", "conv3", "bn3"]

    def branch(x):
        for name in names:
            x = getattr(made, name)(x.clone())
        return x

    return branch, made.downsample or nn.Identity(), nn.functional.relu


@pytest.mark.parametrize(("kind", "strided"), KINDS)
@pytest.mark.parametrize("pos", ["post", "residual", "pre", "identity"])
def test_where_the_layer_acts(kind, strided, pos):
    made = block(kind, strided)
    branch, shortcut, act = parts(block(kind, strided))
    x = torch.randn(4, 4 if strided else 8, 6, 6)
    convert_cnsn(made, "sn", pos)
    norm = made.cnsn.selfnorm
    with torch.no_grad():
        norm.g_fc.weight.normal_()
    expected = {
        "post": lambda: act(norm(branch(x) + shortcut(x))),
        "residual": lambda: act(norm(branch(x)) + shortcut(x)),
        "pre": lambda: act(branch(norm(x)) + shortcut(x)),
        "identity": lambda: act(branch(x) + norm(shortcut(x))),
    }[pos]()
    torch.testing.assert_close(made(x), expected)
    plain = block(kind, strided)
    torch.testing.assert_close(revert_cnsn(made)(x), plain(x), rtol=0, atol=0)
    assert made.state_dict().keys() == plain.state_dict().keys()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in made.modules())


def test_the_branch_ends_behind_attention_and_stochastic_depth():
    made = block("basic", False, drop_path=DropPath(0.5))
    convert_cnsn(made, "sn", "residual")
    seen = []
    made.drop_path.register_forward_pre_hook(lambda _module, _inputs: seen.append("drop_path"))
    made.cnsn.register_forward_pre_hook(lambda _module, _inputs: seen.append("cnsn"))
    made(torch.randn(2, 8, 4, 4))
    assert seen == ["drop_path", "cnsn"]
    squeezed = timm.create_model("seresnet18")
    assert convert_cnsn(squeezed, "sn", "residual").layer1[0].se._forward_hooks


def test_the_keys_of_a_resnet_and_its_channels():
    model = timm.create_model("resnet50", num_classes=3)
    keys = list(model.state_dict())
    convert_cnsn(model)
    new = [key for key in model.state_dict() if key not in keys]
    assert len(new) == 16 * 6
    assert new[:2] == ["layer1.0.cnsn.selfnorm.g_fc.weight", "layer1.0.cnsn.selfnorm.g_bn.weight"]
    assert [key for key in model.state_dict() if key in keys] == keys
    assert [model.get_submodule(f"layer{stage}.0.cnsn.selfnorm").g_bn.num_features for stage in (1, 2, 3, 4)] == [
        256, 512, 1024, 2048,
    ]  # fmt: skip
    assert list(revert_cnsn(model).state_dict()) == keys


def test_new_layers_have_the_type_and_mode_of_the_model():
    model = convert_cnsn(block("basic", True).double().eval(), two_gates=True)
    assert model.cnsn.selfnorm.f_fc.weight.dtype == torch.float64
    assert not any(module.training for module in model.modules())
    assert torch.isfinite(model(torch.randn(2, 4, 6, 6).double())).all()


def acting(model):
    return [index for index, layer in enumerate(crossnorms(model)) if layer.active]


def crossnorms(model):
    return [module for module in model.modules() if isinstance(module, CrossNorm)]


def residual(blocks=3):
    torch.manual_seed(0)
    return nn.Sequential(*(BasicBlock(4, 4) for _ in range(blocks)))


def test_steps_draw_the_acting_layers_with_probability_and_evenly():
    model = convert_cnsn(
        residual(), "cn", active_num=2, cn_prob=0.25, generator=torch.Generator().manual_seed(0)
    ).train()
    assert acting(model) == []
    x = torch.randn(2, 4, 2, 2)
    drawn = []
    for _ in range(300):
        model(x)
        drawn.append(tuple(acting(model)))
    some = [each for each in drawn if each]
    assert all(len(each) == 2 for each in some)
    assert abs(len(some) - 75) < 5 * (300 * 0.25 * 0.75) ** 0.5
    for pair in ((0, 1), (0, 2), (1, 2)):
        assert abs(some.count(pair) - len(some) / 3) < 5 * (len(some) * 2 / 9) ** 0.5


def test_crossnorm_does_act():
    """In the toolkit that ships it nothing ever switches it on."""
    x = torch.randn(4, 4, 6, 6)
    model = convert_cnsn(residual(1), "cn", cn_prob=1.0).train()
    plain = residual(1).train()
    assert not torch.equal(model(x), plain(x))
    assert acting(model) == [0]
    with crossnorm_active(model, False):
        assert torch.equal(model(x), plain(x))
    assert torch.equal(model.eval()(x), residual(1).eval()(x)) is False  # statistics have moved by now
    never = convert_cnsn(residual(1), "cn", cn_prob=0.0).train()
    assert torch.equal(never(x), residual(1).train()(x))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = residual(2)

    def forward(self, x):
        return self.blocks(x).mean((2, 3))


def test_the_published_setting_for_imagenet():
    model = convert_cnsn(convert_cnsn(Classifier(), "sn"), "cn", "image", cn_prob=1.0).train()
    assert isinstance(model.blocks[0].cnsn.selfnorm, SelfNorm)
    assert model.blocks[0].cnsn.crossnorm is None
    assert crossnorms(model) == [model.cnsn.crossnorm]
    assert [done.options["pos"] for done in model.robust_conversions] == ["post", "image"]
    seen = []
    model.blocks.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    x = torch.randn(4, 4, 6, 6)
    model(x)
    assert not torch.equal(seen[0], x)
    assert len(convert_cnsn(model, "cn", "image").robust_conversions) == 2
    assert set(revert_cnsn(model).state_dict()) == set(Classifier().state_dict())
    assert not model._forward_pre_hooks


def test_cnsn_is_crossnorm_then_selfnorm():
    x = torch.randn(5, 3, 6, 6)
    layer = CNSN(CrossNorm(generator=torch.Generator().manual_seed(1)), SelfNorm(3)).train()
    layer.crossnorm.active = True
    found = layer(x)
    layer.crossnorm.generator.manual_seed(1)
    torch.testing.assert_close(found, layer.selfnorm(layer.crossnorm(x)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "xn"}, "kind must be one of"),
        ({"pos": "behind"}, "pos one of"),
        ({"pos": "image"}, "'image' for kind 'cn' alone"),
        ({"kind": "cn", "pos": "image"}, "a Sequential would run"),
        ({"cn_prob": 1.5}, "cn_prob must be in"),
        ({"active_num": 0}, "active_num at least 1"),
        ({"active_num": 4}, "active_num=4 of 3 CrossNorm layers"),
        ({"include": "nowhere"}, "no residual block of timm to convert"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_and_changes_nothing(options, message):
    model = residual()
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(ValueError, match=message):
        convert_cnsn(model, **options)
    assert [name for name, _ in model.named_modules()] == names


def test_blocks_of_another_kind_are_refused_until_they_are_reverted():
    model = convert_cnsn(timm.create_model("resnet18"), "sn")
    with pytest.raises(ValueError, match="layers of the kind 'sn' already"):
        convert_cnsn(model, "cn", "residual")
    assert [each.kind for each in model.modules() if isinstance(each, CNSN)] == ["sn"] * 8
    convert_cnsn(revert_cnsn(model), "cn", "residual")
    assert [each.kind for each in model.modules() if isinstance(each, CNSN)] == ["cn"] * 8
