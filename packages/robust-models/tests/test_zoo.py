"""Published files of every layout, from their names to a model that answers; all of them made here."""

import logging
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image
from robust_models.built_in_normalize import CIFAR10_MEAN, CIFAR10_STD
from robust_models.cache import place
from robust_models.key_mapping import ALL_STEPS, pick_state_dict
from robust_models.normalize import NormalizedModel, get_normalization
from robust_models.registry import Checkpoint, Entry, Preprocess, get_entry, list_models, register_entry
from robust_models.weights import load_weights, matched
from robust_models.zoo import build_model, build_transform, export, pretrained
from timm.data import resolve_data_config
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

BUILT = [entry for entry in list_models(sort="name") if entry.has_builder]
REFERENCE = [entry for entry in list_models(sort="name") if not entry.has_builder]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class WithoutValues(TorchFunctionMode):
    """Skips what fills tensors: on the meta device there is nothing to fill, and to find that out takes its time."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (Tensor.clamp_, Tensor.erfinv_, Tensor.uniform_, Tensor.normal_, Tensor.mul_, Tensor.add_):
            return args[0]
        return func(*args, **(kwargs or {}))


@cache
def shapes(arch, source, arguments, classes, size, clip):
    """Names and shapes of the bare network, as tensors without memory; built once per architecture."""
    entry = Entry(
        name="a/b",
        arch=arch,
        arch_source=source,
        arch_kwargs=dict(arguments),
        num_classes=classes,
        preprocess=Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3, input_size=size),
        checkpoint=Checkpoint(key_mapping=("clip_image_classifier",) if clip else ()),
    )
    with torch.device("meta"), WithoutValues():
        return build_model(entry)


def key_of(entry):
    """What decides the network of an entry."""
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.arch_kwargs.items()}
    size = entry.preprocess.input_size if entry.preprocess else 224
    return entry.arch, entry.arch_source, tuple(arguments.items()), entry.num_classes, size


def of_entry(entry):
    """The empty model of an entry."""
    return shapes(*key_of(entry), "clip_image_classifier" in steps_of(entry))


def steps_of(entry):
    return entry.checkpoint.key_mapping if entry.checkpoint else ()


def bare(model):
    return model.unwrap() if isinstance(model, NormalizedModel) else model


def old_swin(state):
    """What timm stored before 0.9: down-sampling ends a stage, the head has no inner name, tables are kept."""
    old = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        old[".".join(parts).replace("head.fc.", "head.")] = value
        if name.endswith("relative_position_bias_table"):
            old[name.replace("bias_table", "index")] = value.new_zeros(49, 49)
    return {**old, "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}


def fused(state):
    """Class attention with query, key and value in one layer, as old FAN files have it."""
    old = {}
    for name, value in state.items():
        before, q, leaf = name.rpartition(".attn.q.")
        if q and name.startswith("cls_attn_blocks."):
            old[f"{before}.attn.qkv.{leaf}"] = torch.cat([state[f"{before}.attn.{part}.{leaf}"] for part in "qkv"])
        elif not (name.startswith("cls_attn_blocks.") and (".attn.k." in name or ".attn.v." in name)):
            old[name] = value
    return old


def openai(state):
    """An image classifier of WiSE-FT: OpenAI's CLIP with its text part, and a head."""
    old = {
        "image_encoder.model.logit_scale": torch.ones(()),
        "image_encoder.model.positional_embedding": torch.ones(77, 4),
        "image_encoder.model.transformer.resblocks.0.ln_1.weight": torch.ones(4),
    }
    swaps = (
        ("norm_pre.", "ln_pre."), ("norm1.", "ln_1."), ("norm2.", "ln_2."), ("norm.", "ln_post."),
        ("blocks.", "transformer.resblocks."), ("attn.qkv.", "attn.in_proj_"), ("attn.proj.", "attn.out_proj."),
        ("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj."), ("patch_embed.proj.", "conv1."),
    )  # fmt: skip
    for name, value in state.items():
        inner = name.removeprefix("visual.")
        if inner in ("head.weight", "cls_token", "pos_embed"):
            theirs = {"head.weight": "proj", "cls_token": "class_embedding", "pos_embed": "positional_embedding"}[inner]
            value = (
                value.T if inner == "head.weight" else value.flatten(0, 1) if inner == "pos_embed" else value.flatten()
            )
            old[f"image_encoder.model.visual.{theirs}"] = value
        elif inner == name:
            old[name] = value  # the head
        elif inner != "head.bias":  # OpenAI's projection has none
            for ours, theirs in swaps:
                inner = inner.replace(ours, theirs)
            old[f"image_encoder.model.visual.{inner}"] = value
    return old


def published(entry, state, mean, std):
    """A checkpoint as the authors of `entry` would have saved it: every layout that its mapping is there for."""
    steps = steps_of(entry)
    state = dict(state)
    if "timm_swin_filter" in steps:
        state = old_swin(state)
    if "fan_qkv_split" in steps:
        state = fused(state)
    if "clip_image_classifier" in steps:
        state = openai(state)
    if entry.arch_kwargs.get("sub_block1"):
        copies = {f"sub_{name}": value for name, value in state.items() if name.startswith("block1.")}
        state |= copies
    if "drop_bn_adv" in steps:
        norms = {name.rpartition(".")[0] for name in state if name.endswith("running_mean")}
        state |= {f"{norm}.bn_adv.{leaf}": state[f"{norm}.{leaf}"].clone() for norm in norms for leaf in BATCH_NORM}
    if "split_normalizer" in steps:
        state = {"0.mean": mean, "0.std": std, **{f"1.{name}": value for name, value in state.items()}}
    if "drop_normalizer_buffers" in steps:
        state |= {"mu": mean, "sigma": std} if entry.arch != "wrn_dm" else {"mean": mean, "std": std}
    if "strip_model_prefix" in steps and "split_normalizer" not in steps:
        state = {f"model.{name}": value for name, value in state.items()}
    if "strip_module" in steps:
        state = {f"module.{name}": value for name, value in state.items()}
    nest = "state_dict" if "pick_state_dict" in steps else "model" if "pick_model" in steps else None
    return {nest: state, "epoch": 90} if nest else state


@cache
def mapping_problems(arch, source, arguments, classes, size, steps):
    """What does not fit after the published names went through the steps; checked once per architecture."""
    model = shapes(arch, source, arguments, classes, size, "clip_image_classifier" in steps)
    state = bare(model).state_dict()
    entry = Entry(name="a/b", arch=arch, arch_kwargs=dict(arguments), checkpoint=Checkpoint(key_mapping=steps))
    with torch.device("meta"):
        weights = pick_state_dict(published(entry, state, torch.zeros(3), torch.ones(3)))[1]
    problems = {}
    for name, lists in {"auto": [steps, ALL_STEPS] if steps else [ALL_STEPS], "all": [ALL_STEPS]}.items():
        mapped, fit = matched(model, weights, lists)
        assert {name for name in mapped.weights if not name.startswith("normalize.")} == set(state)
        problems[name] = (*fit.missing, *fit.unexpected, *fit.mismatched)
    return problems


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.name)
def test_every_entry_builds_and_takes_its_published_names(entry):
    network = bare(of_entry(entry))
    state = network.state_dict()
    assert network.num_classes == entry.num_classes
    assert any(value.ndim >= 2 and len(value) == entry.num_classes for value in state.values())
    assert mapping_problems(*key_of(entry), steps_of(entry)) == {"auto": (), "all": ()}


@pytest.mark.parametrize("entry", REFERENCE, ids=lambda entry: entry.name)
def test_entries_for_reference_say_that_they_cannot_be_built(entry):
    with pytest.raises(ValueError, match="is listed for reference: there is no builder for its architecture"):
        pretrained(entry.name)


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SMALL = {
    "resnet": ("resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}, 32),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 8, "depths": (2, 2, 2), "num_heads": (1, 2, 2)},
        112,
    ),
    "fan": ("fan_tiny_12_p16_224", {"embed_dim": 32, "depth": 1, "num_heads": 2}, 64),
    "rvt": ("rvt_tiny_plus", {"depths": (2, 1), "num_heads": (1, 2), "head_dim": 16, "paas_blocks": 1}, 64),
    "wrn": ("wrn", {"depth": 10, "width": 1, "sub_block1": True}, 32),
    "wrn_dm": ("wrn_dm", {"depth": 10, "width": 1, "act": "silu"}, 32),
    "clip": (
        "vit_base_patch16_clip_224",
        {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 16, "img_size": 32},
        32,
    ),
}
MAPPINGS = {
    "auto": ("resnet", ()),
    "plain": ("resnet", ("strip_module", "split_normalizer")),
    "state_dict": ("resnet", ("pick_state_dict", "strip_module", "split_normalizer")),
    "model prefix": ("resnet", ("pick_state_dict", "strip_module", "strip_model_prefix", "split_normalizer")),
    "bn_adv": ("resnet", ("pick_state_dict", "drop_bn_adv", "strip_module", "split_normalizer")),
    "swin": ("swin", ("pick_state_dict", "strip_module", "split_normalizer", "timm_swin_filter")),
    "swin model prefix": (
        "swin",
        ("pick_state_dict", "strip_module", "strip_model_prefix", "split_normalizer", "timm_swin_filter"),
    ),
    "fan": ("fan", ("pick_state_dict", "strip_module", "fan_qkv_split")),
    "rspc fan": ("fan", ("pick_state_dict", "pick_model", "strip_module", "fan_qkv_split")),
    "rvt": ("rvt", ("pick_model", "strip_module")),
    "rspc rvt": ("rvt", ("pick_state_dict", "pick_model", "strip_module")),
    "robnet": ("wrn", ("pick_state_dict", "strip_module")),
    "robustbench": (
        "wrn",
        ("pick_state_dict", "strip_module", "strip_model_prefix", "drop_normalizer_buffers"),
    ),
    "robustbench dm": (
        "wrn_dm",
        ("pick_state_dict", "strip_module", "strip_model_prefix", "drop_normalizer_buffers"),
    ),
    "clip": ("clip", ("clip_image_classifier",)),
}


def small_entry(mapping, **changes):
    kind, steps = MAPPINGS[mapping]
    arch, arguments, size = SMALL[kind]
    return Entry(
        **{
            "name": f"test/{mapping.replace(' ', '_')}",
            "arch": arch,
            "arch_kwargs": arguments,
            "num_classes": 5,
            "preprocess": Preprocess(mean=MEAN, std=STD, input_size=size, confirmed=True),
            "checkpoint": Checkpoint(key_mapping=steps),
            "metrics": {"clean": 50.0},
            "metrics_source": "a table",
            **changes,
        }
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test sees the user's cache, licences or network."""
    monkeypatch.setenv("ROBUST_MODELS_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ROBUST_MODELS_OFFLINE", "1")
    for variable in ("ROBUST_MODELS_ACCEPT_LICENSE", "ROBUST_MODELS_REGISTRY", "ROBUST_MODELS_MIRRORS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("robust_models.registry._registered", {})


def trained(entry, seed=1):
    """A model of the entry whose entries all differ from those of a fresh one."""
    torch.manual_seed(seed)
    model = build_model(entry)
    with torch.no_grad():
        for value in bare(model).state_dict().values():
            value.copy_(torch.rand_like(value) if value.is_floating_point() else torch.full_like(value, 3))
    if hasattr(bare(model), "visual"):
        nn.init.zeros_(bare(model).visual.head.bias)  # which the published layout does not have
    return model


def put(entry, content):
    """Save a checkpoint where the file of the entry is looked for."""
    file = place(entry)
    file.parent.mkdir(parents=True)
    if file.suffix == ".safetensors":
        flat = {name: value.contiguous().clone() for name, value in pick_state_dict(content)[1].items()}
        safetensors.torch.save_file(flat, file)
    else:
        torch.save(content, file)
    return file


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_published_file_of_every_layout_loads_bit_by_bit_and_back(mapping, ending):
    entry = small_entry(mapping, urls=(f"https://example.org/file.{ending}",))
    register_entry(entry)
    model = trained(entry)
    content = published(entry, bare(model).state_dict(), torch.tensor(MEAN), torch.tensor(STD))
    put(entry, content)
    found = pretrained(entry.name)
    assert not found.training
    assert found.entry is entry
    expected, got = bare(model).state_dict(), bare(found).state_dict()
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    back = pick_state_dict(published(entry, got, torch.tensor(MEAN), torch.tensor(STD)))[1]
    file = pick_state_dict(content)[1]
    assert back.keys() == file.keys()
    assert all(torch.equal(back[name], file[name]) for name in file)
    assert np.allclose(get_normalization(found), (MEAN, STD))
    images = torch.rand(2, 3, entry.preprocess.input_size, entry.preprocess.input_size)
    with torch.no_grad():
        torch.testing.assert_close(found(images), model.eval()(images))


def test_every_mapping_of_the_registry_is_among_those_tried():
    tried = {steps for _, steps in MAPPINGS.values()}
    assert {steps_of(entry) for entry in BUILT} - tried == set()


def test_the_report_tells_what_was_renamed_and_dropped():
    entry = small_entry("robustbench")
    register_entry(entry)
    model = trained(entry)
    put(entry, published(entry, bare(model).state_dict(), torch.tensor(MEAN), torch.tensor(STD)))
    fresh = build_model(entry)
    report = load_weights(fresh, entry.name)
    assert report.source == "state_dict"
    assert report.renamed["module.model.conv1.weight"] == "model.conv1.weight"
    assert report.renamed["module.model.mu"] == "normalize.mean"
    assert report.dropped
    assert all(name.startswith("module.model.sub_block1.") for name in report.dropped)
    assert set(report.loaded) == set(fresh.state_dict())
    assert report.steps == (
        "strip_module",
        "strip_model_prefix",
        "drop_normalizer_buffers",
        "drop_sub_block1",
    )
    assert (report.missing, report.unexpected, report.mismatched, report.converted) == ((), (), (), ())


def test_split_tensors_are_reported():
    entry = small_entry("fan")
    register_entry(entry)
    put(entry, published(entry, bare(trained(entry)).state_dict(), None, None))
    report = load_weights(build_model(entry), entry.name)
    assert "module.cls_attn_blocks.0.attn.qkv.weight" in report.dropped
    assert {f"model.cls_attn_blocks.0.attn.{part}.weight" for part in "qkv"} <= set(report.converted)


def test_mean_and_std_of_the_file_win_with_a_warning():
    entry = small_entry("state_dict")
    register_entry(entry)
    mean = torch.tensor([0.4, 0.5, 0.7])
    put(entry, published(entry, bare(trained(entry)).state_dict(), mean, torch.tensor(STD)))
    with pytest.warns(UserWarning, match=r"sets normalize\.mean to .*0\.69.*; the model had .*0\.60"):
        model = pretrained(entry.name)
    assert torch.equal(model.normalize.mean.flatten(), mean)


def test_built_in_mean_and_std_follow_the_file_with_a_warning():
    entry = small_entry("robustbench dm")
    register_entry(entry)
    mean = torch.tensor([0.4, 0.5, 0.7])
    put(entry, published(entry, bare(trained(entry)).state_dict(), mean, torch.tensor(STD)))
    with pytest.warns(UserWarning, match=r"sets normalize\.mean to .*0\.69.*; the model had .*0\.60"):
        model = pretrained(entry.name)
    assert not isinstance(model, NormalizedModel)
    assert torch.equal(model.normalize.mean.flatten(), mean)


def test_built_in_mean_and_std_of_another_number_of_channels_change_nothing():
    entry = small_entry("robustbench dm")
    register_entry(entry)
    put(entry, published(entry, bare(trained(entry)).state_dict(), torch.rand(3), torch.rand(4)))
    fresh = build_model(entry)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ValueError, match=r"normalize\.std for 4 channels, and the model takes images of 3"):
        load_weights(fresh, entry.name)
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    assert np.allclose(get_normalization(fresh), (MEAN, STD))


def test_steps_of_the_entry_that_do_not_fit_give_way_to_all():
    entry = small_entry("state_dict", checkpoint=Checkpoint(key_mapping=("pick_state_dict",)))
    register_entry(entry)
    model = trained(entry)
    wrapped = {f"module.{name}": value for name, value in bare(model).state_dict().items()}
    put(entry, {"state_dict": wrapped})
    report = load_weights(build_model(entry), entry.name)
    assert report.steps == ("strip_module",)
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(build_model(entry), entry.name, mapping=["pick_state_dict"])
    with pytest.raises(ValueError, match="no step of the key mapping is called 'strip'"):
        load_weights(build_model(entry), entry.name, mapping="strip")


def test_weights_of_an_entry_for_other_classes_leave_the_classifier():
    entry = small_entry("state_dict")
    register_entry(entry)
    model = trained(entry)
    file = put(entry, published(entry, bare(model).state_dict(), torch.tensor(MEAN), torch.tensor(STD)))
    other = build_model(small_entry("state_dict", num_classes=7))
    head = other.model.fc.weight.clone()
    report = load_weights(other, entry.name)
    assert report.mismatched == ("model.fc.weight", "model.fc.bias")
    assert torch.equal(other.model.fc.weight, head)
    assert torch.equal(other.model.conv1.weight, model.model.conv1.weight)
    features = build_model(entry)
    features.reset_classifier(0)
    assert load_weights(features, entry.name).unexpected == ("model.fc.weight", "model.fc.bias")
    with pytest.raises(ValueError, match="new_head=True"):
        load_weights(other, file)
    assert load_weights(other, file, new_head=True).mismatched == report.mismatched
    narrow = build_model(small_entry("state_dict", arch_kwargs={"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 16)}))
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(narrow, file, new_head=True)


def test_averaged_weights_when_asked_for():
    entry = small_entry("state_dict")
    register_entry(entry)
    raw, averaged = trained(entry, 1), trained(entry, 2)
    put(entry, {"state_dict": raw.state_dict(), "state_dict_ema": averaged.state_dict()})
    assert torch.equal(pretrained(entry.name).model.conv1.weight, raw.model.conv1.weight)
    assert torch.equal(pretrained(entry.name, ema=True).model.conv1.weight, averaged.model.conv1.weight)


def test_the_bare_network_takes_normalised_images():
    entry = small_entry("state_dict")
    register_entry(entry)
    put(entry, trained(entry).state_dict())
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    network = pretrained(entry.name, normalized=False)
    assert not isinstance(network, NormalizedModel)
    assert network.entry is entry
    torch.testing.assert_close(network((images - mean) / std), pretrained(entry.name)(images))


def test_device_and_dtype():
    entry = small_entry("state_dict")
    register_entry(entry)
    put(entry, trained(entry).state_dict())
    model = pretrained(entry.name, device="cpu", dtype=torch.float64)
    assert {value.dtype for value in model.parameters()} == {torch.float64}
    assert model(torch.rand(1, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64


def test_restricted_licences_have_to_be_accepted(monkeypatch, caplog):
    entry = small_entry("state_dict", license="CC-BY-NC-4.0")
    register_entry(entry)
    file = put(entry, trained(entry).state_dict())
    refused = r"test/state_dict are under CC-BY-NC-4\.0.*accept_license=True.*ROBUST_MODELS_ACCEPT_LICENSE"
    with pytest.raises(PermissionError, match=refused):
        pretrained(entry.name)
    with pytest.raises(PermissionError, match=refused):
        load_weights(build_model(entry), entry.name)
    with pytest.raises(PermissionError, match=refused):
        export(entry.name, file.with_name("out.safetensors"))
    assert not file.with_name("out.safetensors").exists()
    assert pretrained(entry.name, accept_license=True).entry.license == "CC-BY-NC-4.0"
    monkeypatch.setenv("ROBUST_MODELS_ACCEPT_LICENSE", "1")
    assert pretrained(entry.name).entry.restricted


@pytest.mark.parametrize("name", ["fan/vit_tiny", "wsl/resnext101_32x8d_wsl"])
def test_the_restricted_entries_refuse_before_anything_is_built(name, monkeypatch):
    monkeypatch.setattr("robust_models.zoo.build_model", lambda entry: pytest.fail("built"))
    with pytest.raises(PermissionError, match="accept_license=True"):
        pretrained(name)


def test_unconfirmed_preprocessing_is_said(caplog):
    unsure = Preprocess(mean=MEAN, std=STD, input_size=32, note="mean and std are a guess")
    entry = small_entry("robnet", preprocess=unsure)
    register_entry(entry)
    put(entry, trained(entry).state_dict())
    with caplog.at_level(logging.WARNING):
        pretrained(entry.name)
    assert "the preprocessing of test/robnet is not confirmed" in caplog.text
    assert "mean and std are a guess" in caplog.text


def test_nothing_is_downloaded_when_the_network_is_forbidden():
    with pytest.raises(FileNotFoundError, match="ROBUST_MODELS_OFFLINE"):
        load_weights(build_model(small_entry("plain")), "light/imagenet1k_gelu_resnet-50_eps4")
    with pytest.raises(FileNotFoundError, match=r"no weights at light/nothing.*no entry of the zoo is called"):
        load_weights(build_model(small_entry("plain")), "light/nothing")


def test_a_file_of_the_name_of_an_entry_is_never_taken_for_it(tmp_path, monkeypatch):
    name = "robustbench/imagenet_linf/Salman2020Do_R18"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUST_MODELS_OFFLINE", "1")
    monkeypatch.setenv("ROBUST_MODELS_HOME", str(tmp_path / "cache"))
    decoy = tmp_path / name
    decoy.parent.mkdir(parents=True)
    model = build_model(get_entry(name))
    torch.save(model.state_dict(), decoy)
    with pytest.raises(FileNotFoundError, match="not in the cache"):
        pretrained(name)
    with pytest.raises(ValueError, match=r"is an entry of the zoo, and a file lies here under that name: write \./"):
        load_weights(model, name)
    assert load_weights(model, f"./{name}").path == decoy.relative_to(tmp_path)


def test_pickles_that_need_code(tmp_path):
    entry = small_entry("state_dict")
    register_entry(entry)
    model = trained(entry)
    put(entry, model)  # the whole module
    with pytest.raises(ValueError, match="allow_pickle=True"):
        pretrained(entry.name)
    found = pretrained(entry.name, allow_pickle=True)
    assert torch.equal(found.model.conv1.weight, model.model.conv1.weight)


def test_export_writes_where_the_weights_are_from(tmp_path):
    entry = small_entry("bn_adv", license="MIT")
    register_entry(entry)
    model = trained(entry)
    file = put(entry, published(entry, bare(model).state_dict(), torch.tensor(MEAN), torch.tensor(STD)))
    checksum = export(entry.name, tmp_path / "out.safetensors")
    fresh = build_model(entry)
    report = load_weights(fresh, tmp_path / "out.safetensors", sha256=checksum)
    assert (report.steps, report.dropped) == (("split_normalizer",), ())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in fresh.state_dict().items())
    with safetensors.safe_open(tmp_path / "out.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["entry"] == "test/bn_adv"
    assert metadata["source_url"] == str(file)
    assert metadata["mapping"] == "drop_bn_adv, strip_module, split_normalizer"
    assert metadata["license"] == "MIT"
    assert len(metadata["source_sha256"]) == 64
    assert metadata["date"].endswith("+00:00")


def picture(width, height):
    """An image whose red channel tells the column and whose green one the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    pixels[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return Image.fromarray(pixels)


def test_transforms_give_pixels_in_0_1_and_cut_as_printed():
    transform = build_transform(get_entry("robustbench/imagenet_linf/Salman2020Do_R50"))
    images = transform(picture(512, 512))
    assert images.shape == (3, 224, 224)
    assert 0.05 < images[0, 0, 0] < 0.08  # 16 of 256 columns are cut off on the left
    assert 0.92 < images[0, 0, -1] < 0.95
    whole = build_transform(get_entry("fan/vit_tiny"))(picture(500, 500))
    assert whole[0, 0, 0] < 0.01
    assert whole.min() >= 0
    assert whole.max() <= 1


@pytest.mark.parametrize("name", ["robustbench/cifar10_linf/Standard", "robnet/robnet_free_cifar10"])
def test_transforms_of_small_images_change_nothing(name):
    image = picture(32, 32)
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    assert torch.equal(build_transform(get_entry(name))(image), expected)


def test_a_transform_without_resizing_cuts_out_the_centre():
    image = picture(500, 400)
    expected = torch.from_numpy(np.array(image)[56:344, 106:394]).permute(2, 0, 1) / 255
    assert torch.equal(build_transform(get_entry("robustbench/imagenet_linf/Wong2020Fast"))(image), expected)


def test_unknown_preprocessing_gives_no_transform():
    with pytest.raises(ValueError, match="is not known: choose a transform yourself"):
        build_transform(get_entry("vits-vs-cnns/deit_small_at"))


def test_tools_of_timm_find_the_printed_preprocessing():
    entry = get_entry("fan/hybrid_base_in22k_1k_384")
    with torch.device("meta"):
        model = build_model(entry)
    found = resolve_data_config({}, model=model.unwrap())
    assert entry.preprocess is not None
    assert found["input_size"] == (3, 384, 384)
    assert found["crop_pct"] == entry.preprocess.crop_pct
    assert found["interpolation"] == entry.preprocess.interpolation
    assert tuple(found["mean"]) == entry.preprocess.mean


def test_a_network_that_normalises_by_itself_tells_loaders_not_to():
    entry = small_entry("robustbench dm")
    found = resolve_data_config({}, model=build_model(entry))
    assert (tuple(found["mean"]), tuple(found["std"])) == ((0.0,) * 3, (1.0,) * 3)
    assert np.allclose(get_normalization(build_model(entry)), (MEAN, STD))
    without = build_model(replace(entry, preprocess=None))
    assert np.allclose(get_normalization(without), (CIFAR10_MEAN, CIFAR10_STD))
