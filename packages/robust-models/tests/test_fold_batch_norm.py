"""Folded batch norms: the same answers, and no folding where it would change them."""

import copy

import pytest
import timm
import torch
from robust_models.layers.fold_batch_norm import fold_batch_norm
from robust_models.layers.permuted_adain import convert_permuted_adain
from timm.layers import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations


def settled(model):
    """The model in float64 and eval mode, with statistics and weights that are not 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for entry in (module.running_mean, module.bias):
                if entry is not None:
                    nn.init.normal_(entry)
            for entry in (module.running_var, module.weight):
                if entry is not None:
                    nn.init.uniform_(entry, 0.5, 2)
    return model.double().eval()


def check(model, x, layers):
    """Fold, compare, and return the folded model; `layers` are the names of the batch norms that go."""
    x = x.double()
    expected = model(x)
    folded = fold_batch_norm(copy.deepcopy(model), x[:1])
    torch.testing.assert_close(folded(x), expected, rtol=1e-10, atol=1e-10)
    assert folded.robust_conversions[0].layers == layers
    return folded


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
    ("linear", "bn", "shape"),
    [
        (nn.Linear, nn.BatchNorm1d, (5, 4)),
        (nn.Conv1d, nn.BatchNorm1d, (5, 4, 9)),
        (nn.Conv2d, nn.BatchNorm2d, (5, 4, 9, 9)),
        (nn.Conv3d, nn.BatchNorm3d, (5, 4, 5, 5, 5)),
        (nn.Conv2d, nn.SyncBatchNorm, (5, 4, 9, 9)),
        (Conv2dSame, nn.BatchNorm2d, (5, 4, 9, 9)),
        (nn.Conv2d, BatchNormAct2d, (5, 4, 9, 9)),
    ],
    ids=["linear", "1d", "2d", "3d", "sync", "same", "fused"],
)
def test_every_kind_of_layer(linear, bn, shape, affine, bias):
    torch.manual_seed(0)
    options = {} if linear is nn.Linear else {"kernel_size": 3, "groups": 2, "stride": 2}
    model = settled(nn.Sequential(linear(4, 6, bias=bias, **options), bn(6, eps=0.1, affine=affine)))
    folded = check(model, torch.randn(shape), ("1",))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    assert isinstance(folded[1], nn.ReLU if bn is BatchNormAct2d else nn.Identity)


@pytest.mark.parametrize(
    ("name", "folded", "of"),
    [("resnet18", 20, 20), ("efficientnet_b0", 49, 49), ("densenet121", 59, 121), ("tf_efficientnet_b0", 49, 49)],
)
def test_networks_of_timm(name, folded, of):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4)
    assert sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()) == of
    model = settled(model)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = model(x)
    fold_batch_norm(model, x[:1])
    assert (model(x) - expected).abs().max() < 1e-11 * expected.abs().max()
    assert len(model.robust_conversions[0].layers) == folded
    x.requires_grad_()
    assert torch.isfinite(torch.autograd.grad(model(x).sum(), x)[0]).all()


class Uses(nn.Module):
    """A convolution, a batch norm, and what else is done with the map between them."""

    def __init__(self, use):
        super().__init__()
        self.conv, self.bn, self.use = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), use

    def forward(self, x):
        return self.use(self, x)


def returned(model, x):
    y = model.conv(x)
    return model.bn(y), {"map": y}


@pytest.mark.parametrize(
    "use",
    [
        lambda model, x: model.bn(model.conv(x)) + model.conv(x),
        lambda model, x: model.bn(model.bn(model.conv(x))),
        lambda model, x: model.conv(x) + model.bn(x),
        lambda model, x: model.bn(functional.relu(model.conv(x))),
        lambda model, x: (lambda y: model.bn(y) + y)(model.conv(x)),
        lambda model, x: (lambda y: y.mean() + model.bn(y))(model.conv(x)),
        lambda model, x: model.bn(model.conv(x).transpose(2, 3)),
        lambda model, x: model.bn(model.conv(x).add_(1)),
        lambda model, x: (lambda y: (model.bn(y), y.add_(1)))(model.conv(x)),
        returned,
    ],
    ids=["twice", "norm-twice", "beside", "behind", "shortcut", "mean", "view", "in-place", "afterwards", "returned"],
)
def test_nothing_is_folded_where_it_would_change_the_answer(use):
    model = settled(Uses(use))
    x = torch.randn(2, 3, 6, 6).double()
    with pytest.raises(ValueError, match="no batch norm right behind"):
        fold_batch_norm(model, x)
    names = [name for name, _ in model.named_modules()]
    assert names == ["", "conv", "bn"]


def test_order_of_computation_counts_and_not_order_of_names():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.bn_of_second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.second, self.bn_of_first = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.bn_of_second(self.second(self.bn_of_first(self.first(x)).relu()))

    torch.manual_seed(0)
    check(settled(Net()), torch.randn(2, 3, 5, 5), ("bn_of_first", "bn_of_second"))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: parametrizations.weight_norm(model[0]),
        lambda model: model[0].register_forward_hook(lambda *_: None),
        lambda model: convert_permuted_adain(model),
    ],
    ids=["parametrised", "hooked", "converted"],
)
def test_layers_that_do_more_stay(change):
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, affine=False))
    change(model)
    if hasattr(model[3], "permuted_adain"):
        with pytest.raises(ValueError, match="no batch norm right behind"):
            fold_batch_norm(settled(model), torch.randn(1, 3, 9, 9).double())
    else:
        check(settled(model), torch.randn(2, 3, 9, 9), ("3",))


def test_a_batch_norm_without_statistics_or_over_other_axes_stays():
    model = nn.Sequential(
        nn.Conv1d(3, 3, 1), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 3), nn.BatchNorm1d(3)
    )
    with pytest.raises(ValueError, match="no batch norm right behind"):
        fold_batch_norm(settled(model), torch.randn(2, 3, 3).double())  # the features of the linear layer come last


def test_training_mode_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match=r"'' is in training mode: call model.eval\(\) first"):
        fold_batch_norm(model, torch.zeros(1, 3, 8, 8))
    model.eval()[1].train()
    with pytest.raises(ValueError, match="'1' is in training mode"):
        fold_batch_norm(model, torch.zeros(1, 3, 8, 8))
    assert isinstance(model[1], nn.BatchNorm2d)


def test_the_example_comes_from_the_model_or_is_asked_for():
    model = settled(timm.create_model("test_efficientnet", num_classes=3)).float()
    assert model.pretrained_cfg["input_size"] == (3, 160, 160)
    x = torch.rand(1, 3, 160, 160)
    expected = model(x)
    torch.testing.assert_close(fold_batch_norm(model)(x), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"Sequential does not say its input size: pass an example"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)).eval())


def test_types_and_frozen_weights_stay_and_no_hook_is_left():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, bias=False), nn.BatchNorm2d(3)).eval().bfloat16().requires_grad_(False)
    fold_batch_norm(model, torch.zeros(1, 3, 8, 8).bfloat16())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
