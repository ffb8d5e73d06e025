"""Other activations in a model: which are found, also fused ones, and what the new ones are like."""

import functools

import pytest
import timm
import torch
from robust_models.layers.activations import convert_activation
from robust_models.layers.lp_relu import LPReLU
from timm.layers import activations as of_timm
from timm.layers.norm_act import BatchNormAct2d
from torch import nn


def kinds(model, *wanted):
    return sum(isinstance(module, wanted) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "from_", "count"),
    [
        ("resnet18", nn.ReLU, 17),
        ("densenet121", nn.ReLU, 121),  # all fused
        ("efficientnet_b0", nn.SiLU, 49),  # 33 of the 49 batch norms act, and 16 squeeze-excite blocks
        ("vit_tiny_patch16_224", nn.GELU, 12),
        ("convnext_atto", nn.GELU, 12),  # of timm's own class
    ],
)
def test_all_activations_of_a_network(name, from_, count):
    with torch.device("meta"):
        model = timm.create_model(name)
    keys = list(model.state_dict())
    assert kinds(model, from_, of_timm.GELU) == count
    convert_activation(model, LPReLU.v2, from_)
    assert (kinds(model, from_, of_timm.GELU), kinds(model, LPReLU)) == (0, count)
    assert len(model.robust_conversions[0].layers) == count
    assert list(model.state_dict()) == keys


def test_the_function_of_a_network_with_other_activations():
    torch.manual_seed(0)
    relu = timm.create_model("resnet18", num_classes=3).eval()
    silu = timm.create_model("resnet18", num_classes=3, act_layer=nn.SiLU).eval()
    silu.load_state_dict(relu.state_dict())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(convert_activation(relu, nn.SiLU)(x), silu(x))


def test_a_fused_activation_comes_behind_the_batch_norm():
    model = nn.Sequential(BatchNormAct2d(3, act_layer=nn.ReLU)).eval()
    x = 20 * torch.randn(2, 3, 4, 4)
    plain = nn.functional.batch_norm(x, model[0].running_mean, model[0].running_var)
    convert_activation(model, LPReLU)
    torch.testing.assert_close(model(x), LPReLU()(plain))


def test_gelu_means_also_the_class_of_timm():
    model = nn.Sequential(nn.GELU(), of_timm.GELU(), nn.GELU(approximate="tanh"), of_timm.GELUTanh())
    convert_activation(model, nn.ReLU, nn.GELU)
    assert [type(module) for module in model] == [nn.ReLU, nn.ReLU, nn.ReLU, of_timm.GELUTanh]


def test_several_kinds_partials_and_patterns():
    model = nn.Sequential(nn.ReLU(), nn.SiLU(), nn.Sequential(nn.ReLU(), nn.ReLU6()))
    convert_activation(model, functools.partial(nn.LeakyReLU, 0.3), (nn.ReLU, nn.SiLU), exclude="^0$")
    assert [type(module) for module in (model[0], model[1], *model[2])] == [
        nn.ReLU,
        nn.LeakyReLU,
        nn.LeakyReLU,
        nn.ReLU6,
    ]
    assert model[1].negative_slope == 0.3


def test_each_has_its_own_parameters_of_the_type_of_the_model():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU()).double()
    convert_activation(model, lambda: LPReLU(learnable=True))
    assert model[1].slopes is not model[2].slopes
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    learned = model[1]
    assert convert_activation(model, lambda: LPReLU(learnable=True))[1] is learned  # nothing is left to convert
    assert len(model.robust_conversions) == 1


def test_nothing_to_convert():
    with pytest.raises(ValueError, match="Linear has no ReLU to convert"):
        convert_activation(nn.Linear(2, 2), nn.SiLU)
    with pytest.raises(ValueError, match="Linear has no Tanh or GELU to convert"):
        convert_activation(nn.Linear(2, 2), nn.SiLU, (nn.Tanh, nn.GELU))
