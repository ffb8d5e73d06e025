"""A recipe that trains in a second, and the comparison of two runs."""

import json

import pytest
import torch
from robust_train import recipes
from robust_train.run_folder import TIMES


@pytest.fixture(autouse=True)
def _one_thread():
    """The tests compare bits, which another number of threads may change."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny():
    """Three epochs of 5 updates with dropout, averaged weights, checkpoints inside of epochs."""
    return recipes.load("digits-fgsm-rs").replace(
        **{
            "epochs": 3,
            "batch_size": 256,
            "model.drop_rate": 0.2,
            "average": {"decay": 0.9, "warmup": True},
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
