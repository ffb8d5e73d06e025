"""`robust-train run` is killed with SIGKILL at chosen places, and ends with the weights of an unbroken run."""

import json
import os
import select
import signal
import subprocess
import sys

import pytest
import torch
from robust_models import create_model, load_weights
from robust_train.checkpoint import listed

# Importing torch and timm takes longer than the whole training. This process does it once and forks a child for every
# command, which is then a process of its own, as started from a shell. The child kills itself at the place that it is
# told: at its n-th update, before its n-th file is forced to the disk, or when that file is half written.
SHELL = """
import fcntl, json, os, signal, stat, sys
import sklearn.datasets, sklearn.model_selection, torch
torch.set_num_threads(1)
import robust_train.loop
from robust_train.cli import main

def die(place, count, note):
    passed, fsync, set_learning_rate = [], os.fsync, robust_train.loop.set_learning_rate

    def perhaps(kill):
        passed.append(None)
        if len(passed) == count:
            kill()
            with open(note, "w") as stream:
                stream.write(place)
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_fsync(file):
        status = os.fstat(file)  # folders and metrics.jsonl, which is appended to, do not count, only temporary files
        if stat.S_ISREG(status.st_mode) and not fcntl.fcntl(file, fcntl.F_GETFL) & os.O_APPEND:
            perhaps(lambda: os.ftruncate(file, status.st_size // 2) if place == "half a file" else None)
        fsync(file)

    def dying_update(*arguments):
        perhaps(lambda: None)
        set_learning_rate(*arguments)

    if place == "update":
        robust_train.loop.set_learning_rate = dying_update
    else:
        os.fsync = dying_fsync

print("ready", flush=True)
for line in sys.stdin:
    arguments, death = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if death:
            die(*death)
        os._exit(main(arguments))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture(scope="module")
def robust_train_command(tmp_path_factory):
    """A function that runs `robust-train` to the end, or to its death at a place and count; gives the exit code."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    with log.open("w") as errors:
        shell = subprocess.Popen(
            [sys.executable, "-c", SHELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
        )

    def read():
        assert select.select([shell.stdout], [], [], 300)[0], log.read_text()
        line = shell.stdout.readline().decode().strip()
        assert line, log.read_text()
        return line

    def run(arguments, death=None):
        shell.stdin.write(json.dumps([[str(argument) for argument in arguments], death]).encode() + b"\n")
        return int(read())

    assert read() == "ready"
    yield run
    shell.stdin.close()
    shell.wait(timeout=300)
    shell.stdout.close()


@pytest.fixture(scope="module")
def command(tiny, tmp_path_factory):
    """The arguments for a run of four epochs of five updates in the folder `name`, and the folder."""
    place = tmp_path_factory.mktemp("runs")
    (place / "recipe.yaml").write_text(tiny.replace(epochs=4).to_yaml())

    def make(name):
        return ["run", "--config", place / "recipe.yaml", "--out", place / name, "--device", "cpu"], place / name

    return make


@pytest.fixture(scope="module")
def whole(robust_train_command, command):
    """The folder of an unbroken run."""
    arguments, folder = command("whole")
    assert robust_train_command(arguments) == 0
    return folder


def weights(folder):
    model = create_model("small_cnn_8")
    load_weights(model, folder / "model.safetensors")
    return model.state_dict()


def assert_same_end(folder, whole, records):
    expected = weights(whole)
    for name, value in weights(folder).items():
        assert torch.equal(value, expected[name]), name
    assert records(folder) == records(whole)
    assert (folder / "config.yaml").read_bytes() == (whole / "config.yaml").read_bytes()
    assert not list((folder / "checkpoints").glob(".*.tmp"))


# Where each start dies, one after another, and the update of the newest checkpoint then. A start writes config.yaml,
# versions.json and metrics.jsonl first, and summary.csv where an epoch is done.
DEATHS = [
    ("file", 1, 0),  # config.yaml
    ("half a file", 1, 0),
    ("update", 1, 0),
    ("update", 2, 0),
    ("half a file", 8, 5),  # the checkpoint after update 6
    ("update", 4, 8),
    ("file", 9, 12),  # the checkpoint after update 14, past an evaluation
    ("half a file", 7, 14),  # the one at the end of an epoch
    ("update", 2, 15),
    ("file", 6, 16),
    ("half a file", 7, 18),  # one of the last
]


def test_a_run_killed_at_many_places_ends_with_the_weights_of_an_unbroken_one(
    robust_train_command, command, whole, records, tmp_path
):
    arguments, broken = command("broken")
    for number, (place, count, update) in enumerate(DEATHS):
        note = tmp_path / str(number)
        code = robust_train_command(arguments, (place, count, str(note)))
        assert (code, note.exists() and note.read_text()) == (-signal.SIGKILL, place), f"start {number}"
        assert not (broken / "model.safetensors").exists()
        kept = listed(broken / "checkpoints")
        assert (int(kept[-1].name.split("-")[1]) if kept else 0) == update, f"start {number}"
        if place == "half a file":
            assert list(broken.rglob(".*.tmp"))
    assert robust_train_command(arguments) == 0
    assert_same_end(broken, whole, records)


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(
    robust_train_command, command, whole, records, tmp_path
):
    arguments, broken = command("truncated")
    assert robust_train_command(arguments, ("update", 13, str(tmp_path / "note"))) == -signal.SIGKILL
    newest = listed(broken / "checkpoints")[-1]
    assert newest.name.startswith("last-00000012-")
    newest.write_bytes(newest.read_bytes()[:1000])
    assert robust_train_command(arguments) == 0
    assert newest.with_suffix(".damaged").exists()
    assert_same_end(broken, whole, records)
