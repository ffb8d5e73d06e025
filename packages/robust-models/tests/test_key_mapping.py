"""Steps from published names to ours: what each does, what it leaves alone, and that it changes nothing in place."""

import pytest
import timm
import torch
from robust_models import key_mapping, resnet_activations
from robust_models.key_mapping import (
    ALL_STEPS,
    NAME_STEPS,
    architecture_filter,
    check_steps,
    drop_bn_adv,
    drop_normalizer_buffers,
    drop_sub_block1,
    map_names,
    pick_state_dict,
    split_normalizer,
    strip_model_prefix,
    strip_module,
    strip_orig_mod,
    traced,
    unwrap_bn,
)
from torch import nn


def tensors(*names):
    return {name: torch.full((1,), float(index)) for index, name in enumerate(names)}


def renamed(step, names, own=()):
    """What `step` makes of weights with these names: their new names, None for those that are gone."""
    weights = tensors(*names.split())
    before = dict(weights)
    after = step(weights, set(own))
    assert weights == before, "changed in place"
    assert step(after, set(own)) == after, "not done at once"
    return " ".join(
        next((new for new, value in after.items() if value is weights[name]), "-") for name in names.split()
    )


@pytest.mark.parametrize(
    ("step", "names", "expected"),
    [
        (strip_module, "module.a module.b.c", "a b.c"),
        (strip_module, "module.module.a module.module.b", "a b"),
        (strip_module, "module.a b", "module.a b"),
        (strip_module, "normalize.mean normalize.std module.a", "normalize.mean normalize.std a"),
        (strip_orig_mod, "_orig_mod.a b._orig_mod.c d", "a b.c d"),
        (split_normalizer, "0.mean 0.std 1.a 1.b.c", "normalize.mean normalize.std a b.c"),
        (split_normalizer, "normalize.mean normalize.std model.a", "normalize.mean normalize.std a"),
        (split_normalizer, "normalize.mean model.a", "normalize.mean a"),
        (split_normalizer, "mu sigma a b", "normalize.mean normalize.std a b"),
        (split_normalizer, "mu a b", "mu a b"),
        (split_normalizer, "0.mean 0.std 1.a 2.b", "0.mean 0.std 1.a 2.b"),
        (split_normalizer, "mean std a", "mean std a"),
        (drop_normalizer_buffers, "mean std a", "normalize.mean normalize.std a"),
        (drop_normalizer_buffers, "mu sigma a", "normalize.mean normalize.std a"),
        (drop_normalizer_buffers, "normalize.mean normalize.std mu sigma a", "normalize.mean normalize.std mu sigma a"),
        (strip_model_prefix, "model.a model.b", "a b"),
        (strip_model_prefix, "normalize.mean model.a", "normalize.mean a"),
        (strip_model_prefix, "model.a b", "model.a b"),
        (drop_bn_adv, "bn1.weight l.bn1.bn_adv.weight l.bn1.bn_adv.bias", "bn1.weight - -"),
        (drop_sub_block1, "block1.a sub_block1.a", "block1.a -"),
    ],
)
def test_what_a_step_does(step, names, expected):
    assert renamed(step, names) == expected


@pytest.mark.parametrize(
    ("step", "names", "own"),
    [
        (strip_module, "module.a module.b", ["module.a"]),
        (strip_orig_mod, "_orig_mod.a b", ["_orig_mod.a"]),
        (split_normalizer, "0.mean 0.std 1.a", ["0.mean", "0.std", "1.a"]),
        (split_normalizer, "mu sigma a", ["mu", "sigma", "a"]),
        (split_normalizer, "normalize.mean normalize.std model.a", ["normalize.mean", "normalize.std", "model.a"]),
        (drop_normalizer_buffers, "mean std a", ["mean", "a"]),
        (strip_model_prefix, "model.a model.b", ["model.a"]),
        (drop_bn_adv, "bn1.weight l.bn1.bn_adv.weight", ["l.bn1.bn_adv.weight"]),
        (drop_sub_block1, "block1.a sub_block1.a", ["sub_block1.a"]),
        (unwrap_bn, "bn1.bn.weight", ["bn1.bn.weight", "bn1.weight"]),
    ],
)
def test_names_that_the_network_itself_has_stay(step, names, own):
    assert renamed(step, names, own) == names


def test_wrapped_batch_norms_lose_the_wrapper_only_where_the_network_has_none():
    own = ["bn1.weight", "bn1.running_mean", "conv.bn.weight", "other.bn.scale"]
    names = "bn1.bn.weight bn1.bn.running_mean conv.bn.weight unknown.bn.weight other.bn.scale"
    assert (
        renamed(unwrap_bn, names, own) == "bn1.weight bn1.running_mean conv.bn.weight unknown.bn.weight other.bn.scale"
    )


@pytest.mark.parametrize("step", NAME_STEPS.values(), ids=list(NAME_STEPS))
def test_weights_that_fit_are_left_alone(step):
    network = timm.create_model("resnet18", num_classes=2)
    state = network.state_dict()
    assert list(step(state, set(state)).items()) == list(state.items())


def test_where_the_weights_lie():
    raw, averaged = tensors("a"), tensors("a")
    for nest in ("state_dict", "model", "model_state_dict", "last"):
        assert pick_state_dict({nest: raw, "epoch": 3, "best_acc": torch.ones(())}) == (nest, raw)
    for nest in ("state_dict_ema", "model_ema", "ema"):
        assert pick_state_dict({"state_dict": raw, nest: averaged}, ema=True) == (nest, averaged)
        assert pick_state_dict({"state_dict": raw, nest: averaged})[1]["a"] is raw["a"]
        assert pick_state_dict({nest: averaged})[0] == nest
    assert pick_state_dict({**raw, "epoch": 3}) == ("", raw)
    assert pick_state_dict({"model": raw, "state_dict": averaged})[1]["a"] is averaged["a"]
    layer = nn.Linear(2, 2)
    assert pick_state_dict(layer)[1].keys() == pick_state_dict({"model": layer})[1].keys() == {"weight", "bias"}


@pytest.mark.parametrize(
    ("content", "ema", "message"),
    [
        ({"epoch": 3}, False, "this holds a mapping with the keys epoch and no state_dict"),
        ([1], False, "this holds a list and no state_dict"),
        ({"state_dict": {}}, False, "keys state_dict and no"),
        ({"state_dict": tensors("a")}, True, "this has no averaged weights"),
    ],
)
def test_nothing_to_pick(content, ema, message):
    with pytest.raises(ValueError, match=message):
        pick_state_dict(content, ema=ema, name="this")


def test_a_trace_follows_the_tensors():
    before = tensors("module.a", "module.b", "gone", "kept", "resized")
    after = {"a": before["module.a"], "b": before["module.b"], "kept": before["kept"], "resized": torch.ones(3)}
    told = traced(before, after)
    assert told.renamed == {"module.a": "a", "module.b": "b"}
    assert told.dropped == ("gone",)
    assert told.converted == ("resized",)


def test_a_trace_of_tied_weights_loses_none():
    tied = torch.ones(1)
    told = traced({"module.a": tied, "module.b": tied}, {"a": tied, "b": tied})
    assert (told.renamed, told.dropped, told.converted) == ({"module.a": "a", "module.b": "b"}, (), ())


def small_resnet():
    return timm.create_model("resnet18", num_classes=3, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))


def small_swin():
    return timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=3, img_size=56, embed_dim=8, depths=(2, 2), num_heads=(1, 2)
    )


def old_swin(state):
    """The names of timm before 0.9: layers end with the down-sampling, and buffers are stored."""
    old = {name.replace("layers.1.downsample", "layers.0.downsample"): value for name, value in state.items()}
    old = {name.replace("head.fc.", "head."): value for name, value in old.items()}
    index = {
        name.replace("relative_position_bias_table", "relative_position_index"): torch.zeros(49, 49) for name in old
    }
    buffers = {name: value for name, value in index.items() if "index" in name}
    return {**old, **buffers, "layers.0.blocks.1.attn_mask": torch.zeros(4, 49, 49)}


def test_old_swin_files():
    network = small_swin()
    state = network.state_dict()
    told = map_names(old_swin(state), network)
    assert told.steps == ("architecture_filter",)
    assert list(told.weights) == list(state)
    assert all(told.weights[name] is state[name] for name in state)
    assert told.renamed["layers.0.downsample.reduction.weight"] == "layers.1.downsample.reduction.weight"
    assert told.renamed["head.weight"] == "head.fc.weight"
    assert "layers.0.blocks.1.attn_mask" in told.dropped
    assert sum("relative_position_index" in name for name in told.dropped) == 4
    assert not told.converted


def test_the_filter_is_not_used_on_names_that_fit():
    network = small_swin()
    told = map_names(network.state_dict(), network)
    assert (told.steps, told.renamed, told.dropped, told.converted) == ((), {}, (), ())


def test_the_filter_is_used_for_superfluous_names_alone():
    network = small_swin()
    state = network.state_dict()
    told = map_names({**state, "layers.0.blocks.1.attn_mask": torch.zeros(4, 49, 49)}, network)
    assert told.weights.keys() == state.keys()
    assert told.dropped == ("layers.0.blocks.1.attn_mask",)


def test_a_filter_that_makes_less_fit_is_not_used(monkeypatch):
    network = small_swin()
    state = network.state_dict()
    monkeypatch.setattr(timm.models.swin_transformer, "checkpoint_filter_fn", lambda weights, model: {})
    assert architecture_filter(state, network) is state


def test_a_filter_that_meets_foreign_names_leaves_them():
    network = timm.create_model("convnext_atto", num_classes=2)
    foreign = {"nothing.weight": torch.ones(2, 2)}  # timm's filter looks its shape up in the model: KeyError
    assert architecture_filter(foreign, network) is foreign
    assert architecture_filter(foreign, small_resnet()) is foreign  # no filter
    assert architecture_filter(foreign, nn.Linear(2, 2)) is foreign  # not a model of timm


def test_an_objection_of_the_filter_is_kept(monkeypatch):
    network = small_swin()

    def objects(weights, model):
        raise ValueError("for another window")

    monkeypatch.setattr(timm.models.swin_transformer, "checkpoint_filter_fn", objects)
    assert map_names({"a": torch.ones(1)}, network).objection == "for another window"
    assert map_names(network.state_dict(), network).objection == "for another window"


def test_the_filter_of_the_module_that_registered_the_model_comes_first(monkeypatch):
    network = timm.create_model("resnet50_gelu", num_classes=2)  # ours, of timm's class
    monkeypatch.setattr(
        resnet_activations,
        "checkpoint_filter",
        lambda weights, model: {name.removeprefix("x."): value for name, value in weights.items()},
        raising=False,
    )
    state = network.state_dict()
    told = map_names({f"x.{name}": value for name, value in state.items()}, network)
    assert list(told.weights) == list(state)


def test_a_normalisation_is_kept_beside_what_the_filter_makes():
    network = small_swin()
    state = network.state_dict()
    file = {"0.mean": torch.zeros(3), "0.std": torch.ones(3), **{f"1.{n}": v for n, v in old_swin(state).items()}}
    told = map_names(file, network)
    assert told.weights["normalize.mean"] is file["0.mean"]
    assert set(told.weights) == {*state, "normalize.mean", "normalize.std"}
    assert told.steps == ("split_normalizer", "architecture_filter")


def test_steps_run_in_the_order_given():
    network = nn.ModuleDict({"a": nn.Linear(1, 1)})
    file = {f"model.module.{name}": value for name, value in network.state_dict().items()}
    assert set(map_names(file, network, ["strip_module", "strip_model_prefix"]).weights) != set(network.state_dict())
    told = map_names(file, network, ["strip_model_prefix", "strip_module"])
    assert set(told.weights) == set(network.state_dict())
    assert told.steps == ("strip_model_prefix", "strip_module")
    assert set(map_names(file, network).weights) == set(network.state_dict())


def test_every_prefix_at_once():
    network = small_resnet()
    state = network.state_dict()
    file = {f"module.1.module.{name.replace('bn1.', 'bn1.bn.')}": value for name, value in state.items()}
    file["module.0.mean"], file["module.0.std"] = torch.zeros(3), torch.ones(3)
    file["module.1.module.layer1.0.bn1.bn_adv.weight"] = torch.ones(8)
    told = map_names(file, network)
    assert set(told.weights) == {*state, "normalize.mean", "normalize.std"}
    assert all(told.weights[name] is state[name] for name in state)
    assert told.steps == ("strip_module", "split_normalizer", "strip_module", "drop_bn_adv", "unwrap_bn")
    assert told.dropped == ("module.1.module.layer1.0.bn1.bn_adv.weight",)
    assert told.renamed["module.1.module.bn1.bn.weight"] == "bn1.weight"


def test_unknown_steps():
    assert check_steps(["pick_model", *ALL_STEPS, "fan_qkv_split"])
    with pytest.raises(ValueError, match=r"no step of the key mapping is called 'strip_modules': take .*strip_module,"):
        map_names({}, nn.Linear(1, 1), ["strip_modules"])


def test_every_step_is_known_by_its_function_and_part_of_all():
    assert all(getattr(key_mapping, name) is step for name, step in NAME_STEPS.items())
    assert {*NAME_STEPS, "architecture_filter"} == set(ALL_STEPS)
