import json
import subprocess
import sys
import warnings
from importlib.metadata import version

import numpy as np
import pytest
import torch
from PIL import Image
from robust_models import create_model, save_weights
from robust_viz import cli
from robust_viz.cli import main


@pytest.fixture
def digit(tmp_path):
    """An image file and weights of the small network for the digits: (path, path)."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "my digit.png")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(create_model("small_cnn_8"), tmp_path / "weights.safetensors")
    return tmp_path / "my digit.png", tmp_path / "weights.safetensors"


def test_figures_writes_them_and_prints_their_paths(run_folder, capsys):
    assert main(["figures", str(run_folder), "--png"]) == 0
    printed = capsys.readouterr().out.split()
    assert [path.rsplit("/", 1)[1] for path in printed] == ["accuracy-vs-eps-digits-linf.svg", "corruptions-digits.svg"]
    assert (run_folder / "figures" / "corruptions-digits.png").is_file()


def test_figures_without_png_writes_none(run_folder):
    assert main(["figures", str(run_folder)]) == 0
    assert not list((run_folder / "figures").glob("*.png"))


def test_boundary_puts_a_figure_into_a_run_folder(digit, tmp_path, capsys):
    image, weights = digit
    out = tmp_path / "out"
    command = ["boundary", str(image), "--model", "small_cnn_8", "--weights", str(weights), "--out", str(out)]
    assert main([*command, "--points", "9", "--norm", "linf", "--seed", "3"]) == 0
    file = tmp_path / "out" / "figures" / "boundary-my-digit.svg"
    assert capsys.readouterr().out.strip() == str(file)
    first = file.read_bytes()
    (entry,) = json.loads((file.parent / "index.json").read_text())["figures"]
    assert entry["title"] == "Decision boundary of small_cnn_8 around my digit"
    assert "seed 3" in entry["caption"]
    assert "Linf" in entry["caption"]
    assert main([*command, "--points", "9", "--norm", "linf", "--seed", "3"]) == 0
    assert file.read_bytes() == first


def test_settings_come_from_a_yaml_file_and_are_overridden(digit, tmp_path):
    image, weights = digit
    config = tmp_path / "boundary.yaml"
    config.write_text(f"model: small_cnn_8\nweights: {weights}\nout: {tmp_path / 'out'}\npoints: 9\nextent: 0.5\n")
    assert main(["boundary", "--config", str(config), "--extent", "0.25", str(image)]) == 0
    (entry,) = json.loads((tmp_path / "out" / "figures" / "index.json").read_text())["figures"]
    assert "up to 0.25" in entry["caption"]


MODEL, WEIGHTS = "--model=small_cnn_8", "--weights={}/weights.safetensors"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figures", "{}/nowhere"], "no run folder at"),
        (["figures", "{}"], "no result.json in"),
        (["boundary", "{}/my digit.png", MODEL], "give --weights FILE, or --pretrained"),
        (["boundary", "{}/my digit.png", "--model=smal_cnn", WEIGHTS], "no model is called"),
        (["boundary", "{}/none.png", MODEL, WEIGHTS], "no image at"),
        (["boundary", "{}/my digit.png", MODEL, "--weights={}/no.pt"], "no weights at"),
        (["boundary", "{}/my digit.png", MODEL, WEIGHTS, "--label=10"], "label must lie in 0..9"),
        (["boundary", "{}/my digit.png", MODEL, WEIGHTS, "--device=abacus"], "abacus"),
        (["boundary", "{}/my digit.png", "{}/my digit.png", MODEL, WEIGHTS], "would both be"),
        (["figures", "{}", "--pn"], "nrecognized arguments: --pn"),
        (["boundary", "{}/my digit.png", MODEL, WEIGHTS, "--points=x"], "points"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(digit, tmp_path, capsys, arguments, message):
    out = [f"--out={tmp_path / 'out'}"] if arguments[0] == "boundary" else []
    assert main([argument.format(tmp_path) for argument in arguments] + out) == 2
    error = capsys.readouterr().err
    assert error.startswith("robust-viz: ")
    assert "error:" not in error
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("arguments", [[], ["figures"], ["dance"], ["figures", "x", "--pgn"], ["boundary", "x"]])
def test_a_command_line_that_makes_no_sense_exits_with_2(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("robust-viz: ")
    assert error.count("\n") == 1


def test_python_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "robust_viz", "--help"], capture_output=True, text=True, check=True)
    assert "figures" in done.stdout
    assert "boundary" in done.stdout


def test_the_help_says_what_each_command_does_and_the_version_is_told(capsys):
    for option, part in (("--help", "draw the figures of a run"), ("--version", version("robust-viz"))):
        with pytest.raises(SystemExit) as exit_:
            main([option])
        assert exit_.value.code == 0
        assert part in capsys.readouterr().out


@pytest.mark.parametrize("names", [("猫.png", "犬.png"), ("a b.png", "a-b.png")])
def test_images_whose_pictures_would_share_a_file_are_refused_before_anything_is_drawn(tmp_path, capsys, names):
    images = [str(tmp_path / name) for name in names]
    assert main(["boundary", *images, MODEL, "--weights=w.pt", f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in names)
    assert not (tmp_path / "out").exists()


def test_the_prefix_of_timm_is_optional(digit, tmp_path):
    image, weights = digit
    out = [f"--weights={weights}", f"--out={tmp_path / 'out'}", "--points=5", "--device=cpu"]
    assert main(["boundary", str(image), "--model=timm:small_cnn_8", *out]) == 0
    (entry,) = json.loads((tmp_path / "out" / "figures" / "index.json").read_text())["figures"]
    assert entry["title"] == "Decision boundary of small_cnn_8 around my digit"


@pytest.mark.parametrize("gpu", [True, False])
def test_the_device_is_a_gpu_if_there_is_one(monkeypatch, gpu):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert cli._device(None).type == ("cuda" if gpu else "cpu")


def test_letters_that_the_font_lacks_are_one_line(run_folder, make_result, capsys):
    (run_folder / "robust" / "result.json").write_text(json.dumps(make_result("模型")))
    assert main(["figures", str(run_folder)]) == 0
    error = capsys.readouterr().err
    assert error.startswith("robust-viz: warning: the font lacks 模 型")
    assert error.count("\n") == 1


def test_other_warnings_are_lines(run_folder, monkeypatch, capsys):
    def warn(run, png):
        warnings.warn("look\nout", UserWarning, stacklevel=1)
        return ()

    monkeypatch.setattr(cli, "write_figures", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["figures", str(run_folder)]) == 0
    assert capsys.readouterr().err == "robust-viz: warning: look out\n"


def test_ctrl_c_ends_with_130(run_folder, monkeypatch, capsys):
    def interrupt(run, png):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "write_figures", interrupt)
    assert main(["figures", str(run_folder)]) == 130
    assert capsys.readouterr().err == "robust-viz: interrupted\n"
