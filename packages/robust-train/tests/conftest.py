"""A recipe that trains in a second, and the comparison of two runs."""

import json
import signal

import pytest
import robust_train.loop
import torch
from PIL import Image
from robust_train import Interrupted, recipes, train
from robust_train.run_folder import TIMES
from torch import nn

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


@pytest.fixture
def classifier():
    """Builds networks in float64 and eval mode, images of 1 x 4 x 4 to 4 classes, with a batch norm that has a past."""

    def build(activation=nn.ReLU, stretch=1.0, seed=0):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), activation(), nn.Flatten(), nn.Linear(48, 4)
        ).double()
        with torch.no_grad():
            network(torch.rand(16, 1, 4, 4, dtype=torch.float64))
            network[4].weight.mul_(stretch)
        return network.eval()

    return build


@pytest.fixture
def batch():
    """Six images of 1 x 4 x 4 in float64, and their classes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 4, 4, generator=generator, dtype=torch.float64)
    return images, torch.tensor([0, 3, 2, 1, 1, 0])


@pytest.fixture
def broken_off(monkeypatch):
    """Trains, is broken off when a batch of this number begins, goes on, and gives the report of that."""

    def run(recipe, folder, begun):
        batches = []
        set_learning_rate = robust_train.loop.set_learning_rate

        def stop(*arguments):
            batches.append(None)
            if len(batches) == begun:
                raise KeyboardInterrupt
            set_learning_rate(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(robust_train.loop, "set_learning_rate", stop)
            with pytest.raises((KeyboardInterrupt, Interrupted)):
                train(recipe, folder, device="cpu")
        report = train(recipe, folder, device="cpu")
        assert report.resumed == begun - 1
        return report

    return run
