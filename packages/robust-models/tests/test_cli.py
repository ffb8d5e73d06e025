"""The command, from its arguments to its exit code, on a small registry of its own."""

import json
import logging
import os
import subprocess
import sys
import warnings
from importlib.metadata import version

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from robust_models.cli import main
from robust_models.registry import get_entry
from robust_models.zoo import build_transform, pretrained

COMMANDS = ("list", "info", "download", "verify", "convert", "export", "check")
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "input_size": 32, "crop_pct": 1.0, "confirmed": True}
SMALL = {
    "name": "test/small",
    "arch": "test_resnet",
    "dataset": "colours",
    "num_classes": 3,
    "threat": {"norm": "Linf", "eps": "8/255"},
    "metrics": {"clean": 100.0, "autoattack": 12.5},
    "metrics_source": "nowhere",
    "urls": ["https://weights.example/small.pth.tar"],
    "preprocess": PREPROCESS,
    "license": "MIT",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A mirror with the weights of a registry of three entries, and an empty cache; no network."""
    torch.manual_seed(0)
    state = timm.create_model("test_resnet", num_classes=3).state_dict()
    mirror = tmp_path / "mirror" / "test" / "small"
    mirror.mkdir(parents=True)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, mirror / "small.pth.tar")
    entries = [SMALL, SMALL | {"name": "test/nc", "license": "CC-BY-NC-4.0"}, SMALL | {"name": "test/gone"}]
    (tmp_path / "registry.json").write_text(json.dumps({"models": entries}))
    for name in ("HF_HUB_OFFLINE", "ROBUST_MODELS_ACCEPT_LICENSE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROBUST_MODELS_REGISTRY", str(tmp_path / "registry.json"))
    monkeypatch.setenv("ROBUST_MODELS_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ROBUST_MODELS_MIRRORS", str(tmp_path / "mirror"))
    monkeypatch.setenv("ROBUST_MODELS_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """Run the command; its exit code, what it wrote and what it said beside."""

    def run(*arguments):
        code = main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


def cached(folder):
    return folder / "cache" / "test" / "small" / "small.pth.tar"


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=str)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: robust-models {' '.join(command)}".rstrip())
    assert command or all(f"\n    {name}" in said for name in COMMANDS)


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"robust-models {version('robust-models')}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fetch",),
        ("download",),
        ("info", "a/b", "--jsn"),
        ("list", "--loadabl"),
        ("check", "a/b", ".", "--images", "0"),
    ],
    ids=str,
)
def test_wrong_arguments_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 2
    assert "robust-models" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "download", "verify", "export", "check", "convert"])
def test_an_unknown_name_ends_with_2_and_what_comes_close(command, run):
    rest = {"export": ["x.safetensors"], "check": ["."]}.get(command, [])
    code, out, err = run(command, "test/smal", *rest)
    assert (code, out) == (2, "")
    assert err.startswith("robust-models: no entry of the zoo is called 'test/smal': did you mean test/small")
    assert "Traceback" not in err


def test_list_is_a_table_sorted_by_the_metric(run):
    code, out, err = run("list", "test/*")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["name", "architecture", "data", "threat", "clean", "autoattack", "loads"],
        *(
            [f"test/{name}", "test_resnet", "colours", "Linf", "8/255", "100.00", "12.50", "yes"]
            for name in ("gone", "nc", "small")
        ),
    ]
    assert len({line.index("Linf") for line in out.splitlines()[1:]}) == 1
    assert "3 entries" in err


def test_list_filters_and_writes_json(run):
    def names(*arguments):
        return [entry["name"] for entry in json.loads(run("list", *arguments, "--json")[1])]

    assert names("test/small") == ["test/small"]
    assert names("--dataset", "colours", "--threat", "Linf 8/255") == ["test/gone", "test/nc", "test/small"]
    assert names("--dataset", "colours", "--threat", "L2") == []
    assert len(names()) > 200
    assert set(names("--loadable")) < set(names())
    entry = json.loads(run("list", "test/small", "--json")[1])[0]
    assert (entry["metrics"]["clean"], entry["preprocess"]["std"]) == (100.0, [0.2, 0.3, 0.4])
    code, _, err = run("list", "--sort", "cleen")
    assert code == 2
    assert "no entry has a metric 'cleen'" in err


def test_info_tells_the_entry_and_whether_it_is_here(run, folder):
    code, out, _ = run("info", "test/small")
    assert code == 0
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines["license"].strip() == "MIT"
    assert lines["file"].strip() == str(cached(folder))
    assert lines["downloaded"].strip() == "False"
    run("download", "test/small")
    told = json.loads(run("info", "test/small", "--json")[1])
    assert told["downloaded"] is True
    assert len(told["recorded_sha256"]) == 64


def test_download_writes_the_path_alone_to_stdout(run, folder):
    code, out, err = run("download", "test/small")
    assert (code, out) == (0, f"{cached(folder)}\n")
    assert "licence of the weights test/small: MIT" in err or err == ""  # said once per process
    assert logging.getLogger("robust_models").level == logging.NOTSET
    code, out, err = run("download", "test/gone")
    assert (code, out) == (1, "")
    assert err.count("test/gone could not be downloaded") == 1
    assert "Traceback" not in err


def test_a_restricted_licence_has_to_be_accepted(run, folder):
    code, _, err = run("download", "test/nc")
    assert code == 1
    assert "--accept-license" in err
    (folder / "mirror" / "test" / "small").rename(folder / "mirror" / "test" / "nc")
    assert run("download", "test/nc", "--accept-license")[0] == 0


def test_verify_and_retrust(run, folder):
    assert run("verify") == (0, "", "robust-models: nothing is downloaded yet\n")
    assert run("verify", "test/small")[:2] == (1, f"absent  test/small: {cached(folder)}\n")
    run("download", "test/small")
    code, out, _ = run("verify")
    assert code == 0
    assert out.startswith("ok      test/small ")
    torch.save({"a": torch.ones(1)}, cached(folder))
    code, out, _ = run("verify")
    assert code == 1
    assert out.startswith("bad     test/small: ")
    code, _, err = run("download", "test/small")
    assert code == 1
    assert "small.pth.tar.bad" in err
    torch.save({"a": torch.ones(1)}, cached(folder))
    assert run("download", "test/small", "--retrust")[0] == 0
    assert run("verify")[0] == 0


def test_convert_takes_a_file_or_an_entry(run, folder):
    torch.save({"model": {"a": torch.ones(2)}}, folder / "best.v1.pth.tar")
    assert run("convert", folder / "best.v1.pth.tar")[:2] == (0, f"{folder / 'best.v1.safetensors'}: 1 tensors\n")
    target = folder / "out.safetensors"
    assert run("convert", "test/small", target)[0] == 0
    with safetensors.safe_open(target, framework="pt") as opened:
        assert opened.metadata()["entry"] == "test/small"
    assert all(name.startswith("module.") for name in safetensors.torch.load_file(target))
    code, _, err = run("convert", target)
    assert code == 2
    assert "safetensors file already" in err
    code, _, err = run("convert", folder / "best.v1.pth.tar", folder / "out.pt")
    assert code == 1
    assert "change the ending" in err


def test_export_writes_the_model_under_our_names(run, folder):
    target = folder / "out.safetensors"
    code, out, _ = run("export", "test/small", target)
    assert code == 0
    assert out.startswith(f"{target}: sha256 ")
    model = pretrained("test/small")
    for name, value in safetensors.torch.load_file(target).items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_check_compares_with_the_printed_accuracy(run, folder):
    model, transform = pretrained("test/small"), build_transform(get_entry("test/small"))
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (40, 40, 3), generator=generator, dtype=torch.uint8).numpy() for _ in range(12)]
    for place in ("right", "wrong"):
        for label in range(3):
            (folder / place / str(label)).mkdir(parents=True)
    with torch.inference_mode():
        for number, image in enumerate(map(Image.fromarray, images)):
            answer = int(model(transform(image)[None]).argmax())
            image.save(folder / "right" / str(answer) / f"{number}.png")
            image.save(folder / "wrong" / str((answer + 1) % 3) / f"{number}.png")
    code, out, _ = run("check", "test/small", folder / "right", "--images", 10, "--batch-size", 4)
    assert code == 0
    assert "test/small: 100.00 % of 10 images" in out
    assert "printed: 100.00 % (nowhere): agrees" in out
    code, out, _ = run("check", "test/small", folder / "wrong")
    assert code == 1
    assert "0.00 % of 12 images" in out
    assert "DIFFERS" in out
    code, _, err = run("check", "test/small", folder / "none")
    assert code == 1
    assert "no folder" in err


@pytest.mark.filterwarnings("default:careful")
def test_warnings_are_one_line_of_the_command(run, folder, monkeypatch):
    monkeypatch.setattr("robust_models.cli.verify", lambda entry: warnings.warn("careful", stacklevel=1))
    assert run("verify")[2].splitlines()[0] == "robust-models: careful"


def test_an_interruption_ends_with_1_and_one_line(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("robust_models.cli.download", interrupted)
    code, _, err = run("download", "test/small")
    assert code == 1
    assert err.startswith("robust-models: interrupted")


@pytest.mark.slow
def test_the_module_runs_and_a_closed_pipe_is_no_error(folder):
    program = [sys.executable, "-m", "robust_models", "list"]
    ended = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True)
    ended.stdout.close()
    assert "Traceback" not in ended.stderr.read()
    ended.stderr.close()
    assert ended.wait() == 0


def test_a_markdown_table_names_its_sources(capsys):
    assert main(["list", "easyrobust/advtrain_swin*", "--markdown"]) == 0
    table, _, sources = capsys.readouterr().out.partition("\n\n")
    row = next(line for line in table.splitlines() if "advtrain_swin_base_patch4_window7_224`" in line)
    assert "| swin_base_patch4_window7_224 | imagenet1k | Linf 4/255 | 75.05 | 47.42 | [1] | published |" in row
    assert sources.startswith("- [1] EasyRobust README, adversarial table")
