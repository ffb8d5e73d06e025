"""The examples run as they stand, and learn."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

pytestmark = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the examples do not lie beside the tests: this is an installed wheel"
)


def run(name, capsys):
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_plain(capsys):
    printed = run("plain.py", capsys)
    assert float(re.search(r"accuracy ([0-9.]+)%", printed)[1]) > 90  # by chance 25
    assert len(re.findall(r"epoch \d: loss", printed)) == 3


def test_mixed_precision(capsys):
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", run("mixed_precision.py", capsys))]
    assert len(losses) == 4
    assert losses[-1] < 0.3  # by chance 0.69


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_ddp():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, EXAMPLES / "ddp.py"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"mean loss ([0-9.]+)", done.stdout)]
    assert len(losses) == 3
    assert losses[-1] < 0.1  # by chance 0.69


def test_they_are_short():
    assert all(len(example.read_text().splitlines()) < 60 for example in EXAMPLES.glob("*.py"))
