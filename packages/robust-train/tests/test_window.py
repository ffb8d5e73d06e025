"""Sums of metrics."""

import torch
from robust_train.window import Window


def test_a_window_gives_means_over_images_and_goes_through_a_checkpoint():
    window = Window()
    window.add({"loss": torch.tensor(6.0), "accuracy": torch.tensor(1)}, images=2)
    window.add({"loss": torch.tensor(3.0), "accuracy": torch.tensor(4)}, images=4)
    assert window.means() == {"loss": 1.5, "accuracy": 5 / 6}
    other = Window()
    other.load_state_dict(window.state_dict(), torch.device("cpu"))
    window.add({"loss": torch.tensor(1.0), "accuracy": torch.tensor(0)}, images=1)
    assert other.means() == {"loss": 1.5, "accuracy": 5 / 6}
    assert window.is_finite()
    window.add({"loss": torch.tensor(float("inf"))}, images=1)
    assert not window.is_finite()
