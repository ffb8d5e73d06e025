import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from robust_models import create_model, save_weights
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
        (["boundary", "{}/my digit.png", "{}/my digit.png", MODEL, WEIGHTS], "share a name"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(digit, tmp_path, capsys, arguments, message):
    out = [f"--out={tmp_path / 'out'}"] if arguments[0] == "boundary" else []
    assert main([argument.format(tmp_path) for argument in arguments] + out) == 2
    error = capsys.readouterr().err
    assert error.startswith("robust-viz: error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("arguments", [[], ["figures"], ["dance"], ["figures", "x", "--pgn"], ["boundary", "x"]])
def test_a_command_line_that_makes_no_sense_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error" in capsys.readouterr().err


def test_python_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "robust_viz", "--help"], capture_output=True, text=True, check=True)
    assert "figures" in done.stdout
    assert "boundary" in done.stdout
