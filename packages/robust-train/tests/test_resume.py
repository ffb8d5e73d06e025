"""`robust-train run` is killed with SIGKILL again and again, and ends with the weights of an unbroken run."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest
import torch
from robust_models import create_model, load_weights
from robust_train.checkpoint import listed

# Importing torch and timm takes longer than the whole training. This process does it once and forks a child for every
# command, which is then a process of its own, as started from a shell.
SHELL = """
import json, os, sys
import sklearn.datasets, sklearn.model_selection, torch
torch.set_num_threads(1)
from robust_train.cli import main
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture(scope="module")
def robust_train_command(tmp_path_factory):
    """A function that runs `robust-train` to the end, or kills it once `kill_when()` is true; gives the exit code."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    with log.open("w") as errors:
        shell = subprocess.Popen(
            [sys.executable, "-c", SHELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
        )

    def read():
        line = shell.stdout.readline().decode().strip()
        assert line, log.read_text()
        return line

    def run(arguments, kill_when=lambda: False):
        shell.stdin.write(json.dumps([str(argument) for argument in arguments]).encode() + b"\n")
        child, deadline = int(read()), time.monotonic() + 60
        while not select.select([shell.stdout], [], [], 0.0005)[0]:  # until the child has ended
            assert time.monotonic() < deadline, log.read_text()
            if kill_when():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                kill_when = lambda: False  # noqa: E731
        return int(read())

    assert read() == "ready"
    yield run
    shell.stdin.close()
    shell.wait(timeout=60)
    shell.stdout.close()


@pytest.fixture
def command(tiny, tmp_path):
    """The arguments for a run of six epochs of five updates in the folder `name`, and the folder."""
    (tmp_path / "recipe.yaml").write_text(tiny.replace(epochs=6).to_yaml())

    def make(name):
        arguments = ["run", "--config", tmp_path / "recipe.yaml", "--out", tmp_path / name, "--device", "cpu"]
        return arguments, tmp_path / name

    return make


def weights(folder):
    model = create_model("small_cnn_8")
    load_weights(model, folder / "model.safetensors")
    return model.state_dict()


def moments(folder):
    """When to kill: as files appear, and in the middle of writing them."""
    file, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"

    def lines(count):
        return lambda: file.exists() and file.read_bytes().count(b"\n") >= count

    def reached(update):
        return lambda: any(int(path.name.split("-")[1]) >= update for path in listed(checkpoints))

    def writing():
        with contextlib.suppress(FileNotFoundError):
            return any(path.suffix == ".tmp" for path in checkpoints.iterdir())
        return False

    return {
        "at once": lambda: True,
        "config written": (folder / "config.yaml").exists,
        "first line": lines(1),
        "first checkpoint": reached(2),
        "while writing a checkpoint": writing,
        "inside of an epoch": reached(8),
        "after an evaluation": lines(10),
        "while writing another": writing,
        "near the end": reached(26),
        "the last line": lines(18),
    }


def test_a_run_killed_at_many_moments_ends_with_the_weights_of_an_unbroken_one(robust_train_command, command, records):
    arguments, whole = command("whole")
    assert robust_train_command(arguments) == 0

    arguments, broken = command("broken")
    codes = {name: robust_train_command(arguments, kill_when=when) for name, when in moments(broken).items()}
    assert list(codes.values()).count(-signal.SIGKILL) >= 6, codes
    assert set(codes.values()) <= {-signal.SIGKILL, 0}
    assert robust_train_command(arguments) == 0

    expected = weights(whole)
    for name, value in weights(broken).items():
        assert torch.equal(value, expected[name]), name
    assert records(broken) == records(whole)
    assert (broken / "config.yaml").read_bytes() == (whole / "config.yaml").read_bytes()
    assert not [path for path in (broken / "checkpoints").iterdir() if path.suffix == ".tmp"]


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(robust_train_command, command, tmp_path):
    arguments, whole = command("whole")
    assert robust_train_command(arguments) == 0

    arguments, broken = command("broken")
    folder = broken / "checkpoints"
    reached = lambda: any("-00000012-" in path.name for path in listed(folder))  # noqa: E731
    assert robust_train_command(arguments, kill_when=reached) == -signal.SIGKILL
    newest = listed(folder)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert robust_train_command(arguments) == 0
    assert newest.with_suffix(".damaged").exists()
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(broken).items())
