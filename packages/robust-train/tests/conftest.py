"""A recipe that trains in a second, and the comparison of two runs."""

import json
import signal

import pytest
import torch
from PIL import Image
from robust_train import recipes
from robust_train.run_folder import TIMES

FOLDER = {
    "name": "folder", "held_out": 0.25, "drop_last": False, "size": 8, "scale": [0.3, 1.0], "flip": 0.5,
    "color_jitter": 0.3, "crop": 1.0, "interpolation": "bilinear",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    """The tests compare bits, which another number of threads may change."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def usual_interrupts():
    """Ctrl-C as a terminal has it, also where the tests run in the background of a script, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def tiny():
    """Three epochs of 5 updates with dropout, averaged weights, checkpoints inside of epochs."""
    return recipes.load("digits-fgsm-rs").replace(
        **{
            "epochs": 3,
            "batch_size": 256,
            "model.drop_rate": 0.2,
            "average": {"decay": 0.9, "warmup": "power", "start": 0},
            "clip": 1.0,
            "evaluation.every": 2,
            "evaluation.steps": 2,
            "checkpoint_every": 2,
            "log_every": 3,
        }
    )


@pytest.fixture
def records():
    """The lines of a run's metrics.jsonl without what a clock decides."""

    def read(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]

    return read


@pytest.fixture
def pictures(tmp_path):
    """Two classes of six pictures of 12 x 10 pixels with random colours."""
    generator = torch.Generator().manual_seed(0)
    for label in ("cat", "dog"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for index in range(6):
            pixels = torch.randint(256, (10, 12, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "train" / label / f"{index}.png")
    return tmp_path


@pytest.fixture
def folder_recipe(tiny):
    return tiny.replace(
        **{
            "data": FOLDER,
            "batch_size": 3,
            "model.name": "test_efficientnet",
            "model.in_chans": 3,
            "model.num_classes": 2,
            "model.img_size": None,
            "model.drop_rate": 0,
            "epochs": 2,
        }
    )
