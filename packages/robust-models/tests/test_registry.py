"""The registry: what is in it, how it is searched, and how users add to it."""

import copy
import json
import os
import pickle
from fractions import Fraction
from importlib.resources import files

import pytest
import timm
from robust_models import key_mapping
from robust_models.entry import read_entry
from robust_models.registry import Checkpoint, Entry, Preprocess, Threat, get_entry, list_models, register_entry

ROWS = json.loads(files("robust_models").joinpath("zoo.json").read_text())["models"]
ENTRIES = list_models(sort="name")


@pytest.fixture(autouse=True)
def nothing_stays_registered(monkeypatch):
    monkeypatch.setattr("robust_models.registry._registered", {})
    monkeypatch.delenv("ROBUST_MODELS_REGISTRY", raising=False)


def test_every_row_of_the_file_is_an_entry_with_its_values():
    assert len(ROWS) == 204
    for row in ROWS:
        entry = get_entry(row["name"])
        for name in ("family", "arch", "arch_source", "arch_kwargs", "dataset", "num_classes", "metrics", "loadable"):
            assert getattr(entry, name) == row[name], (entry.name, name)
        for name in ("method", "paper", "metrics_source", "hf_repo", "license", "sha256_prefix", "note"):
            assert getattr(entry, name) == row[name], (entry.name, name)
        for name in ("urls", "gdrive_ids", "share_pages"):
            assert getattr(entry, name) == tuple(row[name] or ()), (entry.name, name)
        assert (entry.threat is None) == (row["threat"] is None)
        assert entry.threat is None or (entry.threat.norm, entry.threat.eps) == tuple(row["threat"].values())
        assert entry.preprocess is None or list(entry.preprocess.mean) == row["preprocess"]["mean"]
        assert entry.checkpoint is None or list(entry.checkpoint.key_mapping) == row["checkpoint"]["key_mapping"]


def test_every_step_of_every_entry_exists():
    for entry in ENTRIES:
        key_mapping.check_steps(entry.checkpoint.key_mapping if entry.checkpoint else ())


def test_numbers_keep_their_source():
    for entry in ENTRIES:
        assert entry.metrics_source or not entry.metrics, entry.name
        assert all(0 <= value <= 100 or name.endswith(("_mce", "_mfr")) for name, value in entry.metrics.items())
    found = get_entry("robustbench/imagenet_linf/Salman2020Do_R50")
    assert found.metrics["autoattack"] == 34.96
    assert found.metrics_source.startswith("RobustBench")


def test_entries_without_a_builder_say_so_and_are_not_loadable():
    listed = [entry for entry in ENTRIES if not entry.has_builder]
    assert len(listed) == 19
    assert not any(entry.loadable for entry in listed)
    assert all(entry.arch_source == "not planned" and entry.arch.startswith("other:") for entry in listed)


def test_licences_that_forbid_commercial_use():
    restricted = {entry.family for entry in ENTRIES if entry.restricted}
    assert {"fan-official", "resnext-wsl"} <= restricted
    assert all(entry.restricted for entry in ENTRIES if entry.family in ("fan-official", "resnext-wsl"))
    assert not get_entry("robustbench/cifar10_linf/Standard").restricted
    assert not Entry(name="a/b", arch="x").restricted
    for text, expected in {
        "CC-BY-NC-4.0": True, "cc-by-nc-sa": True, "non-commercial": True, "Noncommercial use": True,
        "Apache-2.0": False, "INCLUDED": False,
    }.items():  # fmt: skip
        assert Entry(name="a/b", arch="x", license=text).restricted is expected, text


def test_timms_own_robust_weights_are_listed():
    listed = {entry.name: entry for entry in list_models("timm/*")}
    known = set(timm.list_pretrained("*.ap_in1k"))
    assert len(known) == 9
    assert {f"timm/{name}" for name in known} <= set(listed)
    entry = listed["timm/tf_efficientnet_b0.ap_in1k"]
    assert (entry.method, entry.arch, entry.num_classes) == ("AdvProp", "tf_efficientnet_b0", 1000)
    assert entry.preprocess.mean == (0.5, 0.5, 0.5)
    assert entry.urls[0].endswith(f"{entry.sha256_prefix}.pth")
    assert get_entry(entry.name) == entry
    hub = listed["timm/inception_v3.tf_adv_in1k"]
    assert hub.urls == ("https://huggingface.co/timm/inception_v3.tf_adv_in1k/resolve/main/model.safetensors",)
    assert hub.sha256_prefix is None


def names(**options):
    return [entry.name for entry in list_models(**options)]


def test_filters():
    assert set(names(pattern="light/*cifar100*")) == {
        f"light/cifar100_{size}_eps8" for size in ("xcit-s12", "xcit-m12", "xcit-l12", "resnet-50")
    }
    assert names(pattern="LIGHT/*") == names(family="light-at")
    assert all(entry.arch == "wrn" for entry in list_models(arch="wrn"))
    assert {entry.arch for entry in list_models(arch="wrn*")} == {"wrn", "wrn_dm"}
    assert {entry.dataset for entry in list_models(dataset="cifar*")} == {"cifar10", "cifar100"}
    assert {entry.threat for entry in list_models(threat="none")} == {None}
    assert set(names(threat="linf 4/255")) < set(names(threat="Linf"))
    assert names(threat="Linf 8/255") == names(threat="Linf 0.0313725490196078431")
    assert {entry.threat.eps for entry in list_models(threat="Linf 4/255")} == {"4/255"}
    assert {entry.metrics_source for entry in list_models(source="ares")} == {get_entry("ares/vitb_at").metrics_source}
    assert len(list_models(loadable=True)) + len(list_models(loadable=False)) == len(list_models())
    assert names(pattern="no such*") == []


def test_the_best_come_first_and_those_without_the_number_last():
    found = [entry.metrics.get("autoattack") for entry in list_models(dataset="imagenet1k", threat="Linf")]
    numbers = [value for value in found if value is not None]
    assert numbers == sorted(numbers, reverse=True)
    assert found[len(numbers) :] == [None] * (len(found) - len(numbers))
    errors = [entry.metrics.get("imagenet_c_mce") for entry in list_models(sort="imagenet_c_mce")]
    numbers = [value for value in errors if value is not None]
    assert numbers == sorted(numbers)
    assert len(numbers) > 20
    assert names(sort="name") == sorted(names())


def test_wrong_searches():
    with pytest.raises(ValueError, match=r"no entry has a metric 'autoatack' to sort by: take name, autoattack,"):
        list_models(sort="autoatack")
    with pytest.raises(ValueError, match="such as 'Linf 4/255', got 'Linf four'"):
        list_models(threat="Linf four")
    with pytest.raises(ValueError, match=r"no entry of the zoo is called 'rvt/rvt_tinny': did you mean rvt/rvt_tiny,"):
        get_entry("rvt/rvt_tinny")
    with pytest.raises(ValueError, match=r"did you mean robustbench/cifar10_linf/Kang2021Stable"):
        get_entry("Kang2021")
    with pytest.raises(ValueError, match="list_models"):
        get_entry("qqqqqqqqqq")


def test_entries_of_this_process():
    mine = Entry(name="mine/net", arch="resnet18", metrics={"clean": 12.0})
    register_entry(mine)
    assert get_entry("mine/net") is mine
    assert mine in list_models()
    with pytest.raises(ValueError, match="mine/net already"):
        register_entry(mine)
    with pytest.raises(ValueError, match="already"):
        register_entry(Entry(name="rvt/rvt_tiny", arch="resnet18"))
    other = Entry(name="mine/net", arch="resnet50")
    register_entry(other, replace=True)
    assert get_entry("mine/net") is other


JSON = json.dumps({"models": [{"name": "mine/a", "arch": "resnet18", "num_classes": 7, "license": None}]})
TOML = """
[[models]]
name = "mine/b"
arch = "resnet18"
urls = ["https://example.org/b.pt"]
threat = { norm = "L2", eps = "0.5" }
preprocess = { mean = [0.5], std = [0.25], input_size = 64 }
checkpoint = { key_mapping = ["strip_module"] }
metrics = { clean = 91 }
"""


def test_files_of_entries(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text(JSON)
    (tmp_path / "b.toml").write_text(TOML)
    monkeypatch.setenv("ROBUST_MODELS_REGISTRY", os.pathsep.join([str(tmp_path / "a.json"), str(tmp_path / "b.toml")]))
    assert (get_entry("mine/a").num_classes, get_entry("mine/a").family) == (7, "mine")
    entry = get_entry("mine/b")
    assert entry.threat == Threat(norm="L2", eps="0.5")
    assert entry.threat.radius == 0.5
    assert entry.preprocess == Preprocess(mean=(0.5,), std=(0.25,), input_size=64)
    assert entry.checkpoint == Checkpoint(key_mapping=("strip_module",))
    assert names(threat="L2") == ["mine/b"]
    (tmp_path / "a.json").write_text(json.dumps([{"name": "mine/c", "arch": "x"}]))  # read anew, and a bare list
    assert get_entry("mine/c").arch == "x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"models": 3}', "holds a list of entries"),
        ("[1]", "holds a list of entries"),
        ("{", "Expecting property name"),
        ('[{"name": "mine/a", "arch": "x", "ulrs": []}]', r"entry mine/a has unknown fields ulrs: the fields are name"),
        ('[{"name": "mine/a"}]', r"entry mine/a: missing 1 required keyword-only argument: 'arch'"),
        ('[{"name": "mine/a", "arch": "x"}, {"name": "mine/a", "arch": "x"}]', "two entries have one name: mine/a"),
        ('[{"name": "mine/a", "arch": "x", "threat": "Linf"}]', "threat of mine/a must be a table of fields"),
        (
            '[{"name": "mine/a", "arch": "x", "threat": {"norm": "Linf", "eps": 1}}]',
            "threat of mine/a: eps must be text",
        ),
    ],
)
def test_bad_files(content, message, tmp_path, monkeypatch):
    file = tmp_path / "r.json"
    file.write_text(content)
    monkeypatch.setenv("ROBUST_MODELS_REGISTRY", str(file))
    with pytest.raises(ValueError, match=message) as caught:
        list_models()
    assert str(caught.value).startswith(str(file))


def test_files_that_are_missing_or_take_names(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_MODELS_REGISTRY", str(tmp_path / "none.json"))
    with pytest.raises(FileNotFoundError, match=r"ROBUST_MODELS_REGISTRY names .*none\.json, which is not there"):
        list_models()
    (tmp_path / "none.json").write_text(json.dumps([{"name": "rvt/rvt_tiny", "arch": "x"}]))
    with pytest.raises(ValueError, match="names are taken: rvt/rvt_tiny"):
        list_models()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "plain"}, "name must be family/id"),
        ({"name": "a/../b"}, "name must be family/id"),
        ({"name": "/a/b"}, "name must be family/id"),
        ({"name": "a/.hidden"}, "name must be family/id"),
        ({"name": "a\\b/c"}, "name must be family/id"),
        ({"name": 3}, "name must be family/id"),
        ({"family": "../up"}, "family must be"),
        ({"arch": None}, "arch must be text"),
        ({"license": 3}, "license must be text"),
        ({"urls": ["x"]}, "urls must be a sequence of texts"),
        ({"urls": "https://x"}, "urls must be a sequence of texts"),
        ({"num_classes": 0}, "num_classes must be a positive whole number"),
        ({"num_classes": True}, "num_classes must be a positive whole number"),
        ({"metrics": {"clean": "91"}}, "metrics must be numbers in percent, got clean = '91'"),
        ({"metrics": {"clean": float("nan")}}, "metrics must be numbers"),
        ({"metrics": [91]}, "metrics must be a mapping"),
        ({"sha256": "abc"}, "sha256 must be 64 hexadecimal digits"),
        ({"sha256_prefix": "xyz123"}, "sha256_prefix must be"),
    ],
)
def test_entries_with_wrong_values(change, message):
    with pytest.raises(ValueError, match=message):
        Entry(**{"name": "a/b", "arch": "x", **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.5, 0.5)}, "one value per channel"),
        ({"std": (0.0,)}, "std positive"),
        ({"mean": ()}, "one number per channel"),
        ({"mean": 0.5}, "one number per channel"),
        ({"input_size": 0}, "number of pixels"),
        ({"crop_pct": 0}, "positive share"),
    ],
)
def test_preprocessing_with_wrong_values(change, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(**{"mean": (0.5,), "std": (0.5,), **change})


@pytest.mark.parametrize(
    ("eps", "radius"),
    [("4/255", float(Fraction(4, 255))), ("0.031", 0.031), ("unknown (not printed)", None), ("1/0", None)],
)
def test_radii(eps, radius):
    assert Threat(norm="Linf", eps=eps).radius == radius


def test_entries_are_values():
    entry = get_entry("rvt/rvt_tiny")
    assert pickle.loads(pickle.dumps(entry)) == copy.deepcopy(entry) == entry
    assert hash(entry) == hash(copy.deepcopy(entry))
    assert read_entry({"name": "a/b", "arch": "x", "metrics": None}) == Entry(name="a/b", arch="x")


def test_weights_that_are_no_classifiers_can_be_had_and_are_not_listed():
    entry = get_entry("auxiliary/vqgan_imagenet_f16_1024")
    assert entry.urls
    assert not entry.loadable
    assert not entry.has_builder
    assert not any(each.name.startswith("auxiliary/") for each in list_models())
