"""Switchable batch norm: stored cases, two separate batch norms as the oracle, statuses, and the way back."""

import copy

import pytest
import torch
from robust_models.layers.dual_batch_norm import (
    SwitchableBatchNorm,
    bn_status,
    convert_switchable_bn,
    drop_aux_bn,
    set_bn_status,
)
from timm.layers.norm_act import BatchNormAct2d
from torch import nn


def maps(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.shared_data
def test_the_stored_numbers(golden, named, by_rule):
    case = golden("modules").stored["cases"]["switchable_bn"]
    model = convert_switchable_bn(nn.ModuleDict({"bn": nn.BatchNorm2d(6)}))
    parameters = dict(model.named_parameters())
    entries = [
        [key, list(value.shape), "param" if key in parameters else "buffer"]
        for key, value in model.state_dict().items()
    ]
    assert entries == case["state_dict"]
    by_rule(model, 1).double()
    x = 2 * torch.from_numpy(named("1:x", 4 * 6 * 7 * 9)).view(4, 6, 7, 9) + 0.5

    def stored(name):
        return torch.tensor(case[name]["data"], dtype=torch.float64).view(x.shape)

    start = copy.deepcopy(model.state_dict())
    for status in ("clean", "adv", "mix"):
        model.load_state_dict(start)
        set_bn_status(model, status)
        torch.testing.assert_close(model.train()["bn"](x), stored(f"train_{status}"), rtol=0, atol=1e-9)
        for key, expected in case[f"buffers_after_{status}"].items():
            torch.testing.assert_close(
                model.state_dict()[key], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11
            )
    model.load_state_dict(start)
    for status in ("clean", "adv", "mix"):
        set_bn_status(model, status)
        torch.testing.assert_close(model.eval()["bn"](x), stored("eval_any_status"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d, (7, 3)),
        (nn.BatchNorm1d, (7, 3, 5)),
        (nn.BatchNorm2d, (7, 3, 5, 4)),
        (nn.BatchNorm3d, (7, 3, 4, 3, 2)),
        (nn.SyncBatchNorm, (7, 3, 5, 4)),
    ],
    ids=["1d", "1d-long", "2d", "3d", "sync"],
)
def test_mixed_batches_are_seen_by_separate_batch_norms(layer, shape, momentum):
    plain = layer(3, momentum=momentum).double()
    nn.init.normal_(plain.weight)
    model = convert_switchable_bn(copy.deepcopy(plain))
    main, auxiliary = copy.deepcopy(plain), copy.deepcopy(plain)
    with bn_status(model, "mix"):
        for step in range(3):
            x = 2 * maps(*shape, seed=step) + step
            found = model(x)
            expected = torch.cat([main(x[:3]), auxiliary(x[3:])])  # floor(7 / 2) clean images
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
            grown = torch.autograd.grad(found.square().mul(x).sum(), [model.weight, model.bn_adv.weight])
            wanted = torch.autograd.grad(expected.square().mul(x).sum(), [main.weight, auxiliary.weight])
            torch.testing.assert_close(grown, wanted)
    for name, value in main.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-13)
        torch.testing.assert_close(
            model.state_dict()[f"bn_adv.{name}"], auxiliary.state_dict()[name], rtol=0, atol=1e-13
        )
    x = maps(*shape, seed=9)
    assert torch.equal(model.eval()(x), main.eval()(x))
    with bn_status(model, eval_branch="adv"):
        assert torch.equal(model(x), auxiliary.eval()(x))
    assert torch.equal(drop_aux_bn(model)(x), main(x))
    assert type(model) is layer


def test_the_fused_activation_serves_all_branches():
    plain = BatchNormAct2d(3, act_layer=nn.PReLU, inplace=False).double()
    nn.init.constant_(plain.act.weight, -0.5)
    model = convert_switchable_bn(copy.deepcopy(plain))
    assert [key for key in model.state_dict() if "bn_adv" in key and "act" in key] == []
    x = maps(6, 3, 4, 4)
    with bn_status(model, "mix"):
        found = model(x)
    expected = torch.cat([copy.deepcopy(plain)(x[:3]), copy.deepcopy(plain)(x[3:])])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    with bn_status(model, "adv"):
        torch.testing.assert_close(model(x), plain(x), rtol=0, atol=1e-13)


def test_several_auxiliary_batch_norms_share_the_batch():
    plain = nn.BatchNorm1d(2).double()
    model = convert_switchable_bn(copy.deepcopy(plain), n_aux=2)
    twins = [copy.deepcopy(plain) for _ in range(3)]
    x = maps(8, 2)
    with bn_status(model, "mix"):
        found = model(x)
    expected = torch.cat([twin(part) for twin, part in zip(twins, (x[:2], x[2:5], x[5:]), strict=True)])
    torch.testing.assert_close(found, expected)
    with bn_status(model, "adv2"):
        model(x)
    assert [int(each.num_batches_tracked) for each in (model, model.bn_adv, model.bn_adv2)] == [1, 1, 2]


def test_auxiliary_batch_norms_share_no_memory():
    bn = nn.BatchNorm2d(3).requires_grad_(False)
    model = convert_switchable_bn(bn)
    pointers = [entry.data_ptr() for entry in model.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
    assert not any(parameter.requires_grad for parameter in model.bn_adv.parameters())


def test_without_weights_or_statistics():
    for options in ({"affine": False}, {"track_running_stats": False}):
        plain = nn.BatchNorm2d(3, **options).double()
        model = convert_switchable_bn(copy.deepcopy(plain))
        x = maps(4, 3, 5, 5)
        with bn_status(model, "mix"):
            torch.testing.assert_close(model(x), torch.cat([plain(x[:2]), copy.deepcopy(plain)(x[2:])]))
        assert torch.isfinite(model.eval()(x)).all()


def test_statuses_are_checked_restored_and_not_stored():
    model = convert_switchable_bn(nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2)))
    set_bn_status(model[1], "adv")
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match="got 1 images"), bn_status(model, "mix", eval_branch="adv"):
        model(torch.zeros(1, 2))
    with bn_status(model, "mix", eval_branch="adv"):
        assert [(layer.status, layer.eval_branch) for layer in model] == [("mix", "adv")] * 2
    assert [layer.status for layer in model] == ["clean", "adv"]
    assert [layer.eval_branch for layer in model] == ["main", "main"]
    assert list(model.state_dict()) == keys
    for wrong in ({"status": "adv2"}, {"status": "dirty"}, {"eval_branch": "mix"}):
        with pytest.raises(ValueError, match=r"the status is one of \['clean', 'adv', 'mix'\]"):
            set_bn_status(model, **wrong)
    with pytest.raises(ValueError, match="no switchable batch norm"):
        set_bn_status(nn.Identity(), "adv")
    with pytest.raises(ValueError, match="no switchable batch norm"):
        drop_aux_bn(nn.BatchNorm1d(2))


def test_a_batch_too_small_to_mix():
    model = convert_switchable_bn(nn.BatchNorm2d(3))
    with bn_status(model, "mix"), pytest.raises(ValueError, match="among 2 batch norms, got 1 images"):
        model(torch.randn(1, 3, 4, 4))


def test_unknown_batch_norms_and_numbers_are_refused_before_anything_changes():
    class Mine(nn.BatchNorm2d):
        pass

    model = nn.Sequential(nn.BatchNorm2d(3), Mine(3))
    with pytest.raises(ValueError, match="'1' is a Mine, for which there is no switchable batch norm"):
        convert_switchable_bn(model)
    with pytest.raises(ValueError, match="n_aux must be at least 1 and eval_branch one of"):
        convert_switchable_bn(model, n_aux=0)
    with pytest.raises(ValueError, match=r"one of \['main', 'adv'\], got 1 and 'adv2'"):
        convert_switchable_bn(model, eval_branch="adv2")
    assert not any(isinstance(module, SwitchableBatchNorm) for module in model.modules())
    assert convert_switchable_bn(model, exclude="1").robust_conversions[0].layers == ("0",)


def test_evaluation_can_start_with_the_auxiliary_branch():
    model = convert_switchable_bn(nn.BatchNorm1d(2).double(), eval_branch="adv")
    with bn_status(model, "adv"):
        model(maps(6, 2) + 5)
    x = maps(4, 2)
    torch.testing.assert_close(model.eval()(x), model.bn_adv(x))
    assert convert_switchable_bn(model).eval_branch == "adv"
    assert not torch.allclose(model(x), nn.functional.batch_norm(x, model.running_mean, model.running_var))
