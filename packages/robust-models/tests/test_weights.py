"""Weight files: what is read, what is refused, and that nothing is ever half loaded or executed."""

import argparse
import hashlib
import os
import pickle
import random
import stat

import pytest
import safetensors
import safetensors.torch
import torch
from robust_models import Normalize, NormalizedModel, create_model, load_weights, save_weights
from torch import nn

GREY = {"normalize.mean": torch.full((1, 1, 1, 1), 0.25), "normalize.std": torch.full((1, 1, 1, 1), 0.5)}


def build(seed, **options):
    torch.manual_seed(seed)
    return create_model("small_cnn_8", **options)


@pytest.fixture
def trained():
    return build(1)


@pytest.fixture
def model():
    return build(2)


def assert_same_weights(model, other):
    for (name, value), expected in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name


def test_round_trip_through_a_file(trained, model, tmp_path):
    checksum = save_weights(trained, tmp_path / "w.safetensors")
    report = load_weights(model, tmp_path / "w.safetensors", sha256=checksum.upper())
    assert_same_weights(model, trained)
    assert checksum == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest() == report.sha256
    assert report.path == tmp_path / "w.safetensors"
    assert set(report.loaded) == set(model.state_dict())
    assert (report.source, report.missing, report.unexpected, report.mismatched) == ("", (), (), ())


def test_the_same_weights_give_the_same_bytes_and_replace_an_older_file(trained, model, tmp_path):
    first = save_weights(model, tmp_path / "w.safetensors")
    assert save_weights(trained, tmp_path / "w.safetensors") != first
    assert save_weights(model, tmp_path / "w.safetensors") == first
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == 0o644


def test_a_failed_write_leaves_the_older_file(trained, model, tmp_path, monkeypatch):
    first = save_weights(trained, tmp_path / "w.safetensors")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_weights(model, tmp_path / "w.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    load_weights(model, tmp_path / "w.safetensors", sha256=first)


def test_tied_weights_can_be_saved(tmp_path):
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    save_weights(tied, tmp_path / "w.safetensors")
    assert load_weights(tied, tmp_path / "w.safetensors").missing == ()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "layout",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model": state, "optimizer": {"state": {}}},
        lambda state: {"model_state_dict": state},
        lambda state: {"model_ema": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
        lambda state: {name.replace("model.", "model._orig_mod."): value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.module.{name}": value for name, value in state.items()}},
        lambda state: {
            name.replace("normalize.", "0.").replace("model.", "1."): value.flatten() if "normalize" in name else value
            for name, value in state.items()
        },
        lambda state: {
            {"normalize.mean": "mu", "normalize.std": "sigma"}.get(name, name.removeprefix("model.")): value
            for name, value in state.items()
        },
        lambda state: {name.removeprefix("model."): value for name, value in state.items() if "normalize" not in name},
        lambda state: {name: value for name, value in state.items() if "normalize" not in name},
    ],
    ids=[
        "plain", "state_dict", "model", "model_state_dict", "model_ema", "module", "orig_mod", "module.orig_mod",
        "inner orig_mod", "module twice", "sequential", "mu sigma", "bare", "model prefix alone",
    ],
)  # fmt: skip
def test_reads_every_documented_layout(layout, legacy, trained, model, tmp_path):
    torch.save(layout(trained.state_dict()), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    load_weights(model, tmp_path / "w.pt")
    assert_same_weights(model, trained)


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod."])
def test_a_bare_model_reads_bare_names_and_prefixes(prefix, trained, tmp_path):
    torch.save({prefix + name: value for name, value in trained.unwrap().state_dict().items()}, tmp_path / "w.pt")
    bare = build(2, normalize=False)
    load_weights(bare, tmp_path / "w.pt")
    assert_same_weights(bare, trained.unwrap())


def test_a_bare_model_reads_a_normalised_file_only_if_the_normalisation_does_nothing(trained, tmp_path):
    save_weights(trained, tmp_path / "w.safetensors")
    bare = build(2, normalize=False)
    load_weights(bare, tmp_path / "w.safetensors")
    assert_same_weights(bare, trained.unwrap())
    safetensors.torch.save_file({**trained.state_dict(), **GREY}, tmp_path / "grey.safetensors")
    with pytest.raises(ValueError, match=r"holds a normalisation.*the model has none"):
        load_weights(bare, tmp_path / "grey.safetensors")


def test_a_model_whose_own_names_look_like_wrappers_keeps_them(tmp_path):
    networks = [
        nn.ModuleDict({"module": nn.Linear(2, 2)}),
        nn.ModuleDict({"model": nn.Linear(2, 2)}),
        nn.Sequential(nn.Linear(2, 2)),
    ]
    for network in networks:
        torch.save(network.state_dict(), tmp_path / "w.pt")
        assert load_weights(network, tmp_path / "w.pt").loaded == tuple(network.state_dict())


class Branches(nn.Module):
    """Somebody's own model with the names of ours."""

    def __init__(self, classes=2):
        super().__init__()
        self.normalize, self.model = Normalize([0.4], [0.2]), nn.Conv2d(1, classes, 1)


class Buffers(nn.Conv2d):
    """Somebody's own model whose normalisation is two buffers."""

    def __init__(self, classes=2):
        super().__init__(1, classes, 1)
        self.register_buffer("mu", torch.tensor([0.4]))
        self.register_buffer("sigma", torch.tensor([0.2]))


def in_front(classes=2):
    return nn.Sequential(Normalize([0.4], [0.2]), nn.Conv2d(1, classes, 1))


def different(model):
    """Give every floating entry of the model another value."""
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    return model


@pytest.mark.parametrize(
    "make",
    [
        in_front,
        Branches,
        Buffers,
        lambda: NormalizedModel(in_front()[1], [0.4], [0.2]),
        lambda: NormalizedModel(nn.ModuleDict({"model": nn.Conv2d(1, 2, 1)}), [0.4], [0.2]),
        lambda: nn.DataParallel(nn.ModuleDict({"module": nn.Conv2d(1, 2, 1)})),
        lambda: nn.DataParallel(in_front()),
        lambda: torch.compile(nn.Sequential(torch.compile(nn.Conv2d(1, 2, 1)))),
        lambda: torch.compile(nn.DataParallel(Branches())),
    ],
    ids=[
        "sequential", "normalize and model", "mu and sigma", "ours", "ours around model", "parallel module",
        "parallel sequential", "compiled twice", "compiled parallel",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*sets normalize:UserWarning")
def test_every_model_loads_the_file_that_it_saved(make, tmp_path):
    saved, other = different(make()), make()
    save_weights(saved, tmp_path / "w.safetensors")
    report = load_weights(other, tmp_path / "w.safetensors")
    assert_same_weights(other, saved)
    assert len(report.loaded) == len(saved.state_dict())


@pytest.mark.parametrize("make", [in_front, Branches, Buffers])
def test_without_strict_a_model_with_a_normalisation_of_its_own_keeps_its_names(make, tmp_path):
    saved, other = different(make(3)), make(2)
    save_weights(saved, tmp_path / "w.safetensors")
    report = load_weights(other, tmp_path / "w.safetensors", strict=False)
    names = list(saved.state_dict())
    assert (len(report.loaded), report.missing, report.unexpected) == (2, (), ())
    assert set(report.loaded) | set(report.mismatched) == set(names)
    assert all(torch.equal(other.state_dict()[name], saved.state_dict()[name]) for name in report.loaded)


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, torch.compile, lambda m: torch.compile(nn.DataParallel(m))],
    ids=["parallel", "compiled", "both"],
)
def test_a_wrapped_model_reads_the_plain_file_and_the_plain_model_that_of_the_wrapped(wrap, trained, model, tmp_path):
    save_weights(trained, tmp_path / "w.safetensors")
    report = load_weights(wrap(model), tmp_path / "w.safetensors")
    assert_same_weights(model, trained)
    assert set(report.loaded) == set(trained.state_dict())
    save_weights(wrap(trained), tmp_path / "wrapped.safetensors")
    other = build(3)
    load_weights(other, tmp_path / "wrapped.safetensors")
    assert_same_weights(other, trained)


def test_the_normalisation_of_the_file_wins_with_a_warning(trained, model, tmp_path):
    safetensors.torch.save_file({**trained.state_dict(), **GREY}, tmp_path / "w.safetensors")
    with pytest.warns(UserWarning, match="normalize") as warned:
        load_weights(model, tmp_path / "w.safetensors")
    assert len(warned) == 2
    assert model.normalize.mean.item() == 0.25
    assert model.normalize.std.item() == 0.5


def test_averaged_weights_are_taken_when_asked_for(trained, model, tmp_path):
    other = build(3)
    torch.save({"state_dict": trained.state_dict(), "state_dict_ema": other.state_dict()}, tmp_path / "w.pt")
    assert load_weights(model, tmp_path / "w.pt").source == "state_dict"
    assert_same_weights(model, trained)
    assert load_weights(model, tmp_path / "w.pt", ema=True).source == "state_dict_ema"
    assert_same_weights(model, other)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="no averaged weights"):
        load_weights(model, tmp_path / "w.pt", ema=True)


def test_the_dtype_of_the_model_stays(trained, tmp_path):
    torch.save(trained.half().state_dict(), tmp_path / "w.pt")
    model = build(2).double()
    load_weights(model, tmp_path / "w.pt")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert torch.equal(model.model.head.weight, trained.model.head.weight.double())


class Trap:
    """Unpickled by anything but a restricted reader, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_files_never_execute_code(trained, model, tmp_path):
    trap = tmp_path / "sprung"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({"state_dict": trained.state_dict(), "extra": Trap(trap)}, tmp_path / "zip.pt")
    torch.save(
        {"state_dict": trained.state_dict(), "extra": Trap(trap)},
        tmp_path / "old.pt",
        _use_new_zipfile_serialization=False,
    )
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Trap(trap)))
    for name in ("zip.pt", "old.pt", "raw.pkl"):
        with pytest.raises(ValueError, match=rf"{name} needs .* refused.*safetensors"):
            load_weights(model, tmp_path / name)
    with pytest.raises(ValueError, match=r"the Python object posix\.mkdir|the Python object nt\.mkdir"):
        load_weights(model, tmp_path / "zip.pt")
    assert not trap.exists()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_whole_pickled_model_is_refused_with_its_class(trained, model, tmp_path):
    torch.save(trained, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"robust_models\.normalize\.NormalizedModel"):
        load_weights(model, tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", b"", "is empty"),
        ("w.pt", b"\n  <!DOCTYPE html><html>Sign in</html>", "is a web page"),
        ("w.safetensors", b"\xef\xbb\xbf<html>", "is a web page"),
        ("w.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        ("w.pt", b"not weights at all", "neither a safetensors file nor one of torch.save"),
        ("w.safetensors", b"not weights at all", "truncated or damaged"),
        ("w.pt", b"PK\x03\x04 not a checkpoint", "truncated or damaged"),
    ],
)
def test_files_that_hold_something_else(name, content, message, model, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(model, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(kind, share, trained, model, tmp_path):
    if kind == "safetensors":
        save_weights(trained, tmp_path / "whole.safetensors")
    else:
        torch.save(trained.state_dict(), tmp_path / "whole.zip", _use_new_zipfile_serialization=kind == "zip")
    whole = next(tmp_path.glob("whole.*"))
    content = whole.read_bytes()
    file = tmp_path / f"cut{whole.suffix}"
    file.write_bytes(content[: int(share * len(content))])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"cut.* (truncated or damaged|needs more than)"):
        load_weights(model, file)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_another_checksum(trained, model, tmp_path):
    save_weights(trained, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"has sha256 [0-9a-f]{64} and not 0{64}: it is damaged or another file"):
        load_weights(model, tmp_path / "w.safetensors", sha256="0" * 64)
    with pytest.raises(ValueError, match="64 hexadecimal digits, got 'abc'"):
        load_weights(model, tmp_path / "w.safetensors", sha256="abc")


def test_paths_that_do_not_exist(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        load_weights(model, tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(model, tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        save_weights(model, tmp_path / "none" / "w.safetensors")
    with pytest.raises(ValueError, match=r"\.safetensors, got w\.pt"):
        save_weights(model, tmp_path / "w.pt")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_every_cut_and_every_flipped_byte_loads_or_is_a_value_error_with_the_path(legacy, tmp_path):
    network, file = nn.Linear(1, 1), tmp_path / "w.pt"
    torch.save(network.state_dict(), file, _use_new_zipfile_serialization=not legacy)
    content = file.read_bytes()
    draw = random.Random(0)
    damaged = [content[:length] for length in range(len(content))]
    for _ in range(1000):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        damaged.append(bytes(flipped))
    messages = []
    for data in damaged:
        file.write_bytes(data)
        try:
            load_weights(network, file)
            messages.append(None)
        except ValueError as error:
            messages.append(str(error))
    assert None not in messages[: len(content)]
    messages = [message for message in messages if message is not None]
    assert len(messages) > len(content) + 100
    assert all(message.startswith(str(file)) for message in messages)


@pytest.mark.parametrize("error", [AssertionError(), TypeError("\n"), MemoryError("no room\nat all")], ids=str)
def test_whatever_torch_raises_at_a_damaged_file_is_told_in_one_line(error, trained, model, tmp_path, monkeypatch):
    torch.save(trained.state_dict(), tmp_path / "w.pt")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(ValueError, match=rf"w\.pt is truncated or damaged.*\({type(error).__name__}: [^\n]*\)$"):
        load_weights(model, tmp_path / "w.pt")


def _without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: _without(s, "model.conv2.bias"), r"1 entries are missing from the file: model\.conv2\.bias"),
        (lambda s: _without(s, "normalize.std"), r"1 entries are missing from the file: normalize\.std"),
        (lambda s: _without(s, "normalize.mean"), r"1 entries are missing from the file: normalize\.mean"),
        (lambda s: {**s, "model.extra": torch.ones(1)}, r"1 entries are unknown to the model: model\.extra"),
        (
            lambda s: {**s, "model.conv1.weight": torch.ones(32, 3, 3, 3)},
            r"conv1\.weight is \(32, 3, 3, 3\) in the file and \(32, 1, 3, 3\)",
        ),
        (lambda s: {**s, "model.conv1.bias": torch.ones(32, dtype=torch.int64)}, r"1 entries differ in shape or kind"),
        (lambda s: {**s, "model.head.weight": torch.ones(3, 128), "model.head.bias": torch.ones(3)}, "num_classes=3"),
    ],
    ids=["missing", "only mean", "only std", "unexpected", "channels", "integers", "classes"],
)
def test_files_that_do_not_fit_load_nothing(change, message, trained, model, tmp_path):
    torch.save(change(trained.state_dict()), tmp_path / "w.pt")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(model, tmp_path / "w.pt")
    assert "w.pt does not fit this SmallCNN; nothing was loaded" in str(caught.value)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_without_strict_what_fits_is_loaded_and_the_rest_reported(trained, model, tmp_path):
    state = {
        **_without(trained.state_dict(), "model.conv2.bias"),
        "model.extra": torch.ones(1),
        "model.head.bias": torch.ones(3),
    }
    kept = model.state_dict()["model.head.bias"].clone()
    torch.save(state, tmp_path / "w.pt")
    report = load_weights(model, tmp_path / "w.pt", strict=False)
    assert (report.missing, report.unexpected, report.mismatched) == (
        ("model.conv2.bias",),
        ("model.extra",),
        ("model.head.bias",),
    )
    assert torch.equal(model.state_dict()["model.head.bias"], kept)
    assert torch.equal(model.model.conv3.weight, trained.model.conv3.weight)
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="nothing was loaded"):
        load_weights(model, tmp_path / "other.pt", strict=False)


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"state_dict": {}}], ids=["no weights", "list", "empty"])
def test_checkpoints_without_weights(content, model, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"no state_dict: save model\.state_dict"):
        load_weights(model, tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_a_torchscript_archive(trained, model, tmp_path):
    torch.jit.script(trained).save(str(tmp_path / "w.pt"))
    with pytest.raises(ValueError, match=r"TorchScript archive: load it with torch\.jit\.load"):
        load_weights(model, tmp_path / "w.pt")


def test_the_report_follows_names_into_the_model(trained, model, tmp_path):
    state = {f"module.{name.removeprefix('model.')}": value for name, value in trained.state_dict().items()
             if not name.startswith("normalize.")}  # fmt: skip
    torch.save({"state_dict": {**state, "module.x.bn_adv.weight": torch.ones(1)}}, tmp_path / "w.pt")
    report = load_weights(model, tmp_path / "w.pt")
    assert_same_weights(model, trained)
    assert report.renamed["module.conv1.weight"] == "model.conv1.weight"
    assert set(report.renamed.values()) == set(report.loaded)
    assert report.dropped == ("module.x.bn_adv.weight",)
    assert report.steps == ("strip_module", "drop_bn_adv")
    assert report.converted == ()
    save_weights(trained, tmp_path / "own.safetensors")
    assert not load_weights(build(3), tmp_path / "own.safetensors").renamed


def test_steps_can_be_chosen(trained, model, tmp_path):
    torch.save({f"module.{name}": value for name, value in trained.unwrap().state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(model, tmp_path / "w.pt", mapping=())
    load_weights(model, tmp_path / "w.pt", mapping=["strip_module"])
    assert_same_weights(model, trained)


def test_the_classifier_may_be_new_and_nothing_else(trained, tmp_path):
    save_weights(trained, tmp_path / "w.safetensors")
    other = build(2, num_classes=3)
    head = other.model.head.weight.clone()
    report = load_weights(other, tmp_path / "w.safetensors", new_head=True)
    assert set(report.mismatched) == {"model.head.weight", "model.head.bias"}
    assert torch.equal(other.model.head.weight, head)
    assert torch.equal(other.model.conv1.weight, trained.model.conv1.weight)
    without = {name: value for name, value in trained.state_dict().items() if not name.startswith("model.head.")}
    torch.save(without, tmp_path / "headless.pt")
    assert set(load_weights(other, tmp_path / "headless.pt", new_head=True).missing) == set(report.mismatched)
    del without["model.conv1.bias"]
    torch.save(without, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"3 entries are missing from the file: model\.conv1\.bias"):
        load_weights(other, tmp_path / "less.pt", new_head=True)


def test_further_lines_in_the_header(trained, model, tmp_path):
    checksum = save_weights(trained, tmp_path / "w.safetensors", metadata={"entry": "a/b"})
    with safetensors.safe_open(tmp_path / "w.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt", "entry": "a/b"}
    load_weights(model, tmp_path / "w.safetensors", sha256=checksum)


def test_neither_a_file_nor_an_entry(model):
    with pytest.raises(FileNotFoundError, match=r"no weights at rvt/rvt_tinny.*did you mean rvt/rvt_tiny"):
        load_weights(model, "rvt/rvt_tinny")


def test_files_without_counters_of_batches_load_as_torch_loads_them(tmp_path):
    trained, model = (create_model("resnet18", num_classes=2) for _ in range(2))
    old = {name: each for name, each in trained.unwrap().state_dict().items() if "num_batches_tracked" not in name}
    torch.save(old, tmp_path / "w.pt")
    report = load_weights(model, tmp_path / "w.pt")
    assert len(report.missing) == 20
    assert_same_weights(model, trained)
    del old["bn1.running_mean"]
    torch.save(old, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"missing from the file: .*bn1\.running_mean"):
        load_weights(model, tmp_path / "w.pt")


def test_a_model_without_memory_is_refused(trained, tmp_path):
    save_weights(trained, tmp_path / "w.safetensors")
    with torch.device("meta"):
        model = build(1)
    with pytest.raises(ValueError, match="meta device"):
        load_weights(model, tmp_path / "w.safetensors")


def test_a_normalisation_alone_is_no_weights(model, tmp_path):
    torch.save({"mu": torch.zeros(3), "sigma": torch.ones(3), "other": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(model, tmp_path / "w.pt", strict=False)
