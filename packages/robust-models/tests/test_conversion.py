"""What every conversion keeps: answers, keys, modes, hooks, kinds of batch norm; and the walk that they share."""

import copy
import functools
import pickle
import warnings

import pytest
import timm
import torch
from robust_models.layers import conversion
from robust_models.layers.activations import convert_activation
from robust_models.layers.blur import convert_blurpool
from robust_models.layers.cnsn import convert_cnsn, revert_cnsn
from robust_models.layers.cross_norm import crossnorm_active
from robust_models.layers.dual_batch_norm import bn_status, convert_switchable_bn, drop_aux_bn
from robust_models.layers.fold_batch_norm import fold_batch_norm
from robust_models.layers.permuted_adain import convert_permuted_adain, revert_permuted_adain
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from timm.models.resnet import BasicBlock
from torch import nn

WITH_BATCH_NORM = ["resnet18", "efficientnet_b0", "densenet121"]
WITHOUT = ["convnext_atto", "vit_tiny_patch16_224"]

# (convert, revert, part of the new keys); each leaves the answers in eval mode as they are.
OF_BATCH_NORM = {
    "permuted_adain": (lambda model: convert_permuted_adain(model, p=1.0), revert_permuted_adain, None),
    "switchable_bn": (convert_switchable_bn, drop_aux_bn, "bn_adv."),
}
EXACT = {
    **OF_BATCH_NORM,
    "crossnorm": (lambda model: convert_cnsn(model, "cn", cn_prob=1.0), revert_cnsn, None),
    "image_crossnorm": (lambda model: convert_cnsn(model, "cn", "image", cn_prob=1.0), revert_cnsn, None),
}
TRAINABLE = {
    **{name: convert for name, (convert, _, _) in EXACT.items()},
    "switchable_bn": lambda model: set_to(convert_switchable_bn(model), "mix"),
    "cnsn": lambda model: convert_cnsn(model, cn_prob=1.0, crop="both", active_num=2),
    "blurpool": convert_blurpool,
    "activation": lambda model: convert_activation(model, nn.SiLU),
}


def set_to(model, status):
    for module in model.modules():
        if hasattr(module, "status"):
            module.status = status
    return model


def build(name):
    """A network in eval mode, whose statistics are not 0 and 1 and whose answers depend on the image."""
    return copy.deepcopy(built(name))


@functools.cache
def built(name):
    torch.manual_seed(0)
    options = {"img_size": 32} if name.startswith("vit") else {}
    model = timm.create_model(name, num_classes=5, **options).train()
    norms = [module for module in model.modules() if conversion.is_batch_norm(module)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.rand(8, 3, 32, 32))
    for norm in norms:
        norm.momentum = 0.1
    assert model.eval()(images()).std(dim=0).min() > 1e-4
    return model


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def small():
    """A residual network of two blocks in eval mode, for what need not be large."""
    torch.manual_seed(0)
    shortcut = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        BatchNormAct2d(4),
        nn.MaxPool2d(3, stride=2, padding=1),
        BasicBlock(4, 8, stride=2, downsample=shortcut),
        BasicBlock(8, 8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    return Wrapped(layers).eval()


def images(count=2):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
@pytest.mark.parametrize("kind", OF_BATCH_NORM)
def test_answers_in_eval_mode_and_after_the_way_back_are_the_same_bits(name, kind):
    convert, revert, new = OF_BATCH_NORM[kind]
    model = build(name)
    logits, state = model(images()), copy.deepcopy(model.state_dict())
    classes = {key: type(module) for key, module in model.named_modules()}
    converted = convert(model)
    assert converted is model
    assert torch.equal(model(images()), logits)
    assert [key for key in model.state_dict() if new is None or new not in key] == list(state)
    (done,) = model.robust_conversions
    assert done.name == kind
    assert len(done.layers) == sum(conversion.is_batch_norm(module) for module in build(name).modules())
    assert not any(module.training for module in model.modules())
    revert(model)
    assert torch.equal(model(images()), logits)
    reverted = model.state_dict()
    assert list(reverted) == list(state)
    assert all(torch.equal(reverted[key], value) for key, value in state.items())
    assert {key: type(module) for key, module in model.named_modules()} == classes
    assert not hasattr(model, "robust_conversions")


@pytest.mark.parametrize("kind", ["crossnorm", "image_crossnorm"])
def test_crossnorm_changes_no_answer_in_eval_mode(kind):
    convert, revert, _ = EXACT[kind]
    model = build("resnet18")
    logits, keys = model(images()), list(model.state_dict())
    assert torch.equal(convert(model)(images()), logits)
    assert list(model.state_dict()) == keys
    with crossnorm_active(model):
        assert not torch.equal(model.train()(images()), build("resnet18").train()(images()))
    revert(model)
    assert [name for name, _ in model.named_modules()] == [name for name, _ in build("resnet18").named_modules()]


@pytest.mark.parametrize("name", WITHOUT)
@pytest.mark.parametrize("kind", OF_BATCH_NORM)
def test_networks_without_batch_norm_are_refused(name, kind):
    with pytest.raises(ValueError, match="no batch norm to convert"):
        OF_BATCH_NORM[kind][0](build(name))


@pytest.mark.parametrize("name", [*WITH_BATCH_NORM, *WITHOUT])
def test_folded_and_exchanged_activations_answer_the_same(name):
    model = build(name)
    logits = model(images())
    kind = nn.GELU if name in WITHOUT else nn.SiLU if "eff" in name else nn.ReLU
    there = convert_activation(copy.deepcopy(model), nn.Mish, kind)
    assert not torch.equal(there(images()), logits)
    back = convert_activation(there, kind, nn.Mish)
    assert torch.equal(back(images()), logits)
    assert list(back.state_dict()) == list(model.state_dict())
    if name in WITHOUT:
        with pytest.raises(ValueError, match="no batch norm right behind"):
            fold_batch_norm(model, images(1))
        return
    exact = model.double()(images().double())
    folded = fold_batch_norm(model, images(1).double())(images().double())
    torch.testing.assert_close(folded, exact, rtol=0, atol=1e-9 * exact.abs().max().item())


@pytest.mark.parametrize("kind", EXACT)
def test_converting_twice_is_converting_once(kind):
    convert = EXACT[kind][0]
    model = convert(build("resnet18"))
    names, done = [name for name, _ in model.named_modules()], list(model.robust_conversions)
    assert convert(model) is model
    assert [name for name, _ in model.named_modules()] == names
    assert model.robust_conversions == done
    assert torch.equal(model(images()), build("resnet18")(images()))


@pytest.mark.parametrize("kind", OF_BATCH_NORM)
@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}], ids=str
)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d, (6, 3)),
        (nn.BatchNorm1d, (6, 3, 5)),
        (nn.BatchNorm2d, (6, 3, 5, 5)),
        (nn.BatchNorm3d, (6, 3, 4, 4, 4)),
        (nn.SyncBatchNorm, (6, 3, 5, 5)),
        (BatchNormAct2d, (6, 3, 5, 5)),
    ],
    ids=["1d", "1d-long", "2d", "3d", "sync", "fused"],
)
def test_every_kind_of_batch_norm_as_the_model_itself(kind, options, layer, shape):
    convert, revert, _ = OF_BATCH_NORM[kind]
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    plain = layer(3, eps=1e-3, **options).double()
    plain(x)
    plain.eval()
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    expected = plain(x)
    converted = convert(copy.deepcopy(plain))
    assert isinstance(converted, layer)
    assert converted.robust_conversions[0].layers == ("",)
    assert torch.equal(converted(x), expected)
    assert all(not parameter.requires_grad for parameter in converted.parameters())
    assert all(entry.dtype == torch.float64 for entry in converted.parameters())
    assert (converted.eps, converted.momentum) == (plain.eps, plain.momentum)
    converted.train()(x)
    assert isinstance(revert(converted), layer)
    assert list(converted.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("kind", OF_BATCH_NORM)
def test_fused_activation_and_dropout_stay_also_when_synchronised(kind):
    torch.manual_seed(0)
    plain = nn.Sequential(BatchNormAct2d(3, act_layer=nn.PReLU, drop_layer=nn.Dropout, inplace=False))
    synchronised = convert_sync_batchnorm(copy.deepcopy(plain))
    x = torch.randn(6, 3, 5, 5)
    for model in (plain, synchronised):
        converted = OF_BATCH_NORM[kind][0](copy.deepcopy(model).eval())
        assert torch.equal(converted(x), model.eval()(x))
        assert isinstance(converted[0].act, nn.PReLU)
        assert isinstance(converted[0].drop, nn.Dropout)


@pytest.mark.parametrize("kind", [*OF_BATCH_NORM, "activation", "blurpool"])
def test_hooks_stay_and_can_still_be_removed(kind):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
    seen = []
    handles = [
        each.register_forward_hook(lambda module, _, output: seen.append((module, tuple(output.shape))))
        for each in model
    ]
    {**TRAINABLE, "switchable_bn": convert_switchable_bn}[kind](model)
    model(images())
    assert [module for module, _ in seen] == list(model)
    assert {shape for _, shape in seen} == {(2, 4, 15, 15)}
    for handle in handles:
        handle.remove()
    model(images())
    assert len(seen) == 3


@pytest.mark.parametrize("kind", OF_BATCH_NORM)
def test_a_part_in_eval_mode_stays_in_eval_mode(kind):
    model = small().train()
    model.model[1].eval()
    OF_BATCH_NORM[kind][0](model)
    before = copy.deepcopy(model.state_dict())
    model(images())
    after = model.state_dict()
    assert torch.equal(before["model.1.running_mean"], after["model.1.running_mean"])
    assert not torch.equal(before["model.3.bn1.running_mean"], after["model.3.bn1.running_mean"])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch, of its own graph breaks
@pytest.mark.parametrize("kind", TRAINABLE)
def test_one_step_of_training_in_bfloat16_and_compiled(kind):
    model = TRAINABLE[kind](small()).train()
    torch._dynamo.reset()
    for forward in (model, torch.compile(model, backend="eager")):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = forward(images(4))
        nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 3])).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name
        torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert torch.isfinite(model.eval()(images())).all()


@pytest.mark.parametrize("kind", TRAINABLE)
def test_evaluation_compiles_whole_and_exports_and_copies(kind):
    model = TRAINABLE[kind](small())
    with torch.no_grad():
        logits = model(images())
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images()), logits)
        torch.testing.assert_close(torch.export.export(model, (images(),)).module()(images()), logits)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, timm's users still have it
            torch.testing.assert_close(torch.jit.trace(model, images())(images()), logits)
        assert torch.equal(copy.deepcopy(model)(images()), logits)
        assert torch.equal(pickle.loads(pickle.dumps(model))(images()), logits)
        wide = model.to(memory_format=torch.channels_last)(images().to(memory_format=torch.channels_last))
        torch.testing.assert_close(wide, logits, rtol=1e-3, atol=1e-4)
        assert torch.isfinite(model.double()(images().double())).all()


def test_a_copy_draws_for_itself_and_leaves_the_first_alone():
    model = convert_cnsn(build("resnet18"), "cn", cn_prob=1.0).train()
    twin = copy.deepcopy(model)
    twin(images())
    layers = [module for module in model.modules() if hasattr(module, "active")]
    assert not any(layer.active for layer in layers)
    assert sum(module.active for module in twin.modules() if hasattr(module, "active")) == 1
    revert_cnsn(twin)
    assert sum(hasattr(module, "active") for module in model.modules()) == 8


def test_include_and_exclude_are_regular_expressions_of_dotted_names():
    model = convert_switchable_bn(build("resnet18"), include=r"^layer[12]\.", exclude=r"downsample|\.bn2$")
    assert model.robust_conversions[0].layers == ("layer1.0.bn1", "layer1.1.bn1", "layer2.0.bn1", "layer2.1.bn1")
    with pytest.raises(ValueError, match=r"20 found, of which include='nowhere' and exclude=None leave none"):
        convert_permuted_adain(build("resnet18"), include="nowhere")


def test_later_conversions_add_to_the_record_and_to_each_other():
    model = build("resnet18")
    logits = model(images())
    convert_permuted_adain(convert_switchable_bn(model), p=1.0)
    assert [done.name for done in model.robust_conversions] == ["switchable_bn", "permuted_adain"]
    assert len(model.robust_conversions[1].layers) == 20
    assert torch.equal(model(images()), logits)
    with bn_status(model, "mix"):
        assert torch.isfinite(model.train()(images(4))).all()
    assert [done.name for done in drop_aux_bn(model).robust_conversions] == ["permuted_adain"]


def test_a_layer_in_two_places_is_converted_once_and_stays_shared():
    shared = nn.BatchNorm2d(3)
    model = nn.Sequential(shared, nn.Identity(), shared)
    convert_switchable_bn(model)
    assert model[0] is model[2]
    assert model.robust_conversions[0].layers == ("0", "2")
    act = nn.ReLU()
    model = convert_activation(nn.ModuleDict({"first": act, "second": nn.Sequential(act)}), nn.GELU)
    assert model["first"] is model["second"][0]
    assert isinstance(model["first"], nn.GELU)
    kept = nn.Sequential(shared := nn.ReLU(), shared)
    with pytest.raises(ValueError, match="no ReLU"):
        convert_activation(kept, nn.GELU, exclude="^1$")  # it cannot be changed in one place only


def test_the_root_is_replaced_and_keeps_its_record():
    act = convert_activation(nn.ReLU().eval(), nn.SiLU)
    assert isinstance(act, nn.SiLU)
    assert not act.training
    again = convert_activation(act, nn.GELU, nn.SiLU)
    assert [done.options["to"] for done in again.robust_conversions] == ["SiLU", "GELU"]


def test_a_repeated_conversion_whose_filter_matches_nothing_is_refused():
    model = convert_permuted_adain(timm.create_model("resnet18"), include="layer1")
    convert_permuted_adain(model, include="layer1")
    with pytest.raises(ValueError, match="no batch norm to convert"):
        convert_permuted_adain(model, include="layre2")
    with pytest.raises(ValueError, match=r"p in \[0, 1\]"):
        convert_permuted_adain(model, p=7.0, include="layer1")
