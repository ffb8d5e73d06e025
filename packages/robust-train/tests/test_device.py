"""Where to compute."""

import pytest
import torch
from robust_train.device import choose_device


def test_takes_what_is_asked_for_or_what_there_is(monkeypatch):
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device().type == "cuda"


def test_refuses_what_there_is_not(monkeypatch):
    with pytest.raises(ValueError, match="no device is called 'gpu7': use cpu, cuda or cuda:N"):
        choose_device("gpu7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda") == torch.device("cuda")
    with pytest.raises(ValueError, match=r"no cuda:1 here \(1 GPUs were found\): use device cpu"):
        choose_device("cuda:1")
    with pytest.raises(ValueError, match="device mps is not supported, only cpu and cuda"):
        choose_device("mps")
