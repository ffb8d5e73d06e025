"""The command, called as a function; once as a process."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from robust_bench import benchmarks
from robust_bench.cli import main
from robust_models import create_model, save_weights


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "trained"
    folder.mkdir()
    save_weights(create_model("small_cnn_8"), folder / "model.safetensors")
    return folder / "model.safetensors"


def test_list_names_every_benchmark_with_the_status_of_its_data(tmp_path, capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line and not line.startswith(" ")}
    assert set(benchmarks.names()) < set(lines)
    assert lines["digits-c"].split()[1] == "embedded"
    assert "needs --data" in lines["folder"]
    (tmp_path / "cat").mkdir()
    assert main(["list", "--json", "--data", str(tmp_path)]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(benchmarks.names())
    assert (listed["digits"]["data"], listed["folder"]["data"]) == ("embedded", "found")
    assert main(["list", "folder"]) == 0
    assert "DIR/<class>/<image>" in capsys.readouterr().out


def test_list_finds_models(capsys):
    assert main(["list", "--models", "resnet18*"]) == 0
    assert "timm:resnet18 " in capsys.readouterr().out
    assert main(["list", "--models", "small_cnn_8"]) == 0
    assert "none" in capsys.readouterr().out
    assert main(["list", "--models"]) == 0
    zoo = capsys.readouterr().out
    line = next(
        line for line in zoo.splitlines() if line.startswith("zoo:easyrobust/advtrain_swin_base_patch4_window7_224 ")
    )
    assert line.split()[1:] == [
        "swin_base_patch4_window7_224",
        "imagenet1k",
        "Linf",
        "4/255",
        "75.05",
        "47.42",
        "published",
    ]
    assert "timm:resnet18 " not in zoo
    assert main(["list", "--models", "easyrobust/*resnet50*"]) == 0
    assert "zoo:easyrobust/" in capsys.readouterr().out
    assert main(["list", "--models", "nothing"]) == 2
    assert "names may hold *" in capsys.readouterr().err


def test_several_models_share_a_run(tmp_path, weights, capsys):
    listed = tmp_path / "models.yaml"
    listed.write_text(
        "- {model: small_cnn_8, weights: trained/model.safetensors, name: first}\n"
        "- {model: small_cnn_8, pretrained: false, name: second}\n"
        "- {model: timm:resnet18, pretrained: false, name: third}\n"
    )
    out = tmp_path / "runs"
    arguments = ["run", "--models", str(listed), "--benchmarks", "digits,digits-pgd", "--out", str(out), "--device"]
    arguments += ["cpu", "--attack.steps", "1", "--attack.restarts", "1", "--attack.eps", "0.1"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert all(name in shown.out for name in ("first", "second", "third"))
    alone = tmp_path / "alone"
    arguments = [
        "run",
        "--model",
        "small_cnn_8",
        "--weights",
        str(weights),
        *arguments[3:6],
        str(alone),
        *arguments[7:],
    ]
    assert main(arguments) == 0
    rows = [json.loads((folder / "result.json").read_text())["rows"] for folder in (out / "first", alone)]
    assert [row["correct"] for row in rows[0]] == [row["correct"] for row in rows[1]]
    models = [json.loads((out / name / "result.json").read_text())["settings"]["model"] for name in ("first", "third")]
    assert models[0]["parameters"] < models[1]["parameters"]
    assert 0 < models[0]["multiply_adds"] < models[1]["multiply_adds"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("- {weights: a.pt}", "must have a 'model'"),
        (
            "- {model: small_cnn_8, pretrained: false}\n- {model: small_cnn_8, pretrained: false}",
            "the name 'small_cnn_8'",
        ),
        ("- {model: small_cnn_8, wieghts: a.pt}", "has 'wieghts'"),
        ("model: small_cnn_8", "must hold a list"),
        ("- {model", "is not YAML"),
        ("- {model: a, name: x/y}\n- {model: b}", "'x/y' cannot be a folder"),
    ],
)
def test_a_wrong_list_of_models_is_one_line(tmp_path, text, word, capsys):
    (tmp_path / "models.yaml").write_text(text)
    arguments = ["run", "--models", str(tmp_path / "models.yaml"), "--benchmarks", "digits", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert word in capsys.readouterr().err


def test_an_adversarial_copy_is_evaluated_as_it_lies(tmp_path, capsys):
    torch.manual_seed(0)
    save_weights(create_model("small_cnn_32", num_classes=2, in_chans=3), tmp_path / "model.safetensors")
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.effect_noise((48, 40), 50 + number).convert("RGB").save(tmp_path / "images" / name / f"{number}.png")
    model = ["--model", "small_cnn_32", "--weights", str(tmp_path / "model.safetensors"), "--device", "cpu"]
    images, copy = str(tmp_path / "images"), str(tmp_path / "copy")
    threat = ["--attack", "pgd", "--eps", "4/255", "--steps", "2", "--workers", "0"]
    assert main(["perturb", images, *model, *threat, "--out", copy]) == 0
    assert "Linf 4/255" in capsys.readouterr().out
    arguments = ["run", *model, "--benchmarks", "folder", "--data", copy, "--out", str(tmp_path / "run"), "--workers=0"]
    assert main(arguments) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["settings"]["data"]["folder"]["preprocessing"] == {"stored": 32, "size": 32, "steps": "none"}


def test_run_and_report(tmp_path, weights, capsys):
    out = tmp_path / "run"
    code = main([
        "run", "--model", "small_cnn_8", "--weights", str(weights), "--benchmarks", "digits,digits-pgd",
        "--out", str(out), "--device", "cpu", "--seed", "3", "--batch_size", "200",
        "--attack.steps", "2", "--attack.restarts", "1", "--attack.eps", "[0.1,0.2]",
    ])  # fmt: skip
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    assert "PGD-2, Linf 0.2" in shown.out
    assert str(out / "result.json") in shown.out
    document = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert (document["model"], document["seed"]) == ("trained", 3)
    assert [row["settings"].get("eps") for row in document["rows"]] == [None, 0.1, 0.2]
    assert document["settings"]["model"]["weights"] == "../trained/model.safetensors"
    assert main(["report", str(out)]) == 0
    assert "Linf" in (out / "report" / "index.html").read_text(encoding="utf-8")
    assert main(["report", str(out), "--out", str(tmp_path / "site")]) == 0
    assert "<table" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert len(json.loads((tmp_path / "site" / "leaderboard.json").read_text(encoding="utf-8"))) > 1
    assert main(["report", str(out), str(out)]) == 2
    assert "give --out DIR" in capsys.readouterr().err
    assert main(["compare", str(out), str(out), "--resamples", "10", "--out", str(tmp_path / "both.json")]) == 0
    assert "McNemar" in capsys.readouterr().out
    assert json.loads((tmp_path / "both.json").read_text(encoding="utf-8"))["format"] == "robust-comparison/1"
    assert main(["card", str(out)]) == 0
    assert "--attack.steps 2" in capsys.readouterr().out
    assert main(["export", str(out), "--out", str(tmp_path / "results.csv")]) == 0
    assert (tmp_path / "results.csv").read_text(encoding="utf-8").count("\n") == 4
    assert main(["export", str(out), "--out", str(tmp_path / "records.parquet")]) == 0


def test_a_configuration_file_with_overrides(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "model: small_cnn_8\npretrained: false\nbenchmarks: [digits, digits-pgd]\ndevice: cpu\n"
        "attack:\n  steps: 7\n  restarts: 1\n  eps: [0.1]\n",
        encoding="utf-8",
    )
    assert main(["run", "--config", str(config), "--out", str(tmp_path), "--attack.steps", "1"]) == 0
    document = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert [row["condition"] for row in document["rows"]] == ["clean", "PGD-1, Linf 0.1"]


RUN = ["run", "--model", "small_cnn_8", "--out", "out", "--device", "cpu", "--benchmarks"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([*RUN, "digits"], "has no weights: give --weights FILE"),
        ([*RUN, "digits", "--weights", "none.pt"], "no file of weights none.pt"),
        ([*RUN, "imagenet"], "unknown benchmark 'imagenet': choose from digits"),
        ([*RUN, "autoattack"], "the benchmark 'imagenet-val' needs its images"),
        ([*RUN, "folder"], "--data DIR"),
        ([*RUN, "folder", "--data", "nowhere"], "no image folder nowhere"),
        (
            ["run", "--model", "small_cnn_9", "--pretrained", "false", "--out", "o", "--benchmarks", "digits"],
            "small_cnn_9",
        ),
        (["report", "nowhere"], "no run folder nowhere"),
        (["report", "."], "no results in ."),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors_are_one_line_and_code_2(arguments, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("robust-bench: ")
    assert shown.err.count("\n") == 1
    assert word in shown.err
    assert list(tmp_path.iterdir()) == []


FAULTY = ["run", "--out", "out", "--device", "cpu", "--benchmarks", "digits", "--model"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([*FAULTY, "faulty:broken"], "faulty:broken() failed, so there is no model to evaluate (KeyError: 'x')"),
        ([*FAULTY, "faulty:number"], "faulty:number must return a torch.nn.Module, got int"),
        ([*FAULTY, "faulty:colour"], "cannot take images of the shape (128, 1, 8, 8)"),
        ([*FAULTY, "faulty:colour", "--in_chans", "1"], "without --in_chans"),
        ([*FAULTY, "faulty:colour", "--out", "faulty.py"], "faulty.py cannot be a folder"),
        ([*FAULTY, "faulty:colour", "--out", "faulty.py/deep"], "cannot be a folder"),
        ([*FAULTY, "faulty:colour", "--device", "foo"], "device 'foo'"),
        ([*FAULTY, "faulty:colour", "--data", "x"], "'x' is in vain"),
        (["report", "demo", "--out", "faulty.py"], "faulty.py cannot be a folder"),
    ],
)
def test_errors_of_the_users_own_are_one_line_and_code_2(arguments, word, capsys, tmp_path, monkeypatch, result):
    (tmp_path / "faulty.py").write_text(
        "from torch import nn\n"
        "def broken():\n    return {}['x']\n"
        "def number():\n    return 5\n"
        "def colour():\n    return nn.Conv2d(3, 10, 8)\n",
        encoding="utf-8",
    )
    result.save(tmp_path / "demo" / "result.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert word in shown.err
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_is_one_line_with_workers_too(tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").write_bytes(b"no picture")
    arguments = ["run", "--model", "small_cnn_32", "--pretrained", "false", "--benchmarks", "folder", "--workers", "1"]
    assert main([*arguments, "--device", "cpu", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"robust-bench: cannot read the image {tmp_path / 'data' / 'cat' / '0.png'}: ")
    assert shown.err.count("\n") == 1


def test_faults_of_our_own_keep_their_traceback(monkeypatch):
    def fault(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("robust_bench.cli.write_report", fault)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["report", "demo"])


@pytest.mark.parametrize("text", ["[" * 100_000, "{", '{"format": "robust-result/1", "rows": {}}'], ids=len)
def test_a_damaged_result_is_one_line_that_names_the_file(tmp_path, capsys, text):
    (tmp_path / "result.json").write_text(text, encoding="utf-8")
    assert main(["report", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"robust-bench: {tmp_path / 'result.json'} ")
    assert shown.count("\n") == 1


def test_one_eps_is_a_number(tmp_path):
    attack = ["--attack.eps", "0.1", "--attack.steps", "1", "--attack.restarts", "1"]
    assert main([*RUN[:4], str(tmp_path), *RUN[5:], "digits-pgd", "--pretrained", "false", *attack]) == 0
    document = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert [row["settings"].get("eps") for row in document["rows"]] == [None, 0.1]


@pytest.mark.parametrize(
    "arguments",
    [[], ["merge"], ["run"], [*RUN, "digits", "--attack.steps", "many"], ["report", ".", "--ou", "x"], ["--vers"]],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_and_version(capsys):
    for arguments, word in (
        (["run", "--help"], "--attack.eps"),
        (["--help"], "list                name the benchmarks"),
        (["--help"], "evaluate a model"),
        (["--help"], "one HTML page"),
        (["--version"], "0."),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert word in capsys.readouterr().out


def test_ctrl_c_leaves_cleanly(tmp_path, monkeypatch, capsys):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.nn.Module, "eval", stop)
    assert main([*RUN[:4], str(tmp_path / "out"), *RUN[5:], "digits", "--pretrained", "false"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_warnings_are_lines_for_readers(tmp_path, monkeypatch, capsys):
    (tmp_path / "theirs.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("warnings.filters", [])
    assert main(["run", "--model", "theirs:build", "--out", "out", "--benchmarks", "digits", "--device", "cpu"]) == 0
    assert "robust-bench: warning: the model's outputs are probabilities" in capsys.readouterr().err


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "robust_bench", "report", "nowhere"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "robust-bench: no run folder nowhere: `robust-bench run --out nowhere` writes one\n"
