"""Learning rates against torch's schedulers."""

import pytest
import torch
from robust_train.schedule import factor, set_learning_rate
from robust_train.settings import ConstantSchedule, CosineSchedule, OneCycleSchedule, StepSchedule
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, OneCycleLR


def rates_of(make, updates):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(updates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("shape", "strategy"), [("cosine", "cos"), ("linear", "linear")])
def test_one_cycle_is_that_of_torch(shape, strategy):
    """torch puts the peak at `pct_start * total - 1` of `total - 1`; with a share of the latter the curves agree."""
    updates, peak_update = 101, 30
    ours = OneCycleSchedule(name="onecycle", peak=peak_update / (updates - 1), start=1 / 25, end=1 / 25e4, shape=shape)

    def theirs(optimizer):
        return OneCycleLR(
            optimizer,
            1.0,
            updates,
            pct_start=(peak_update + 1) / updates,
            anneal_strategy=strategy,
            cycle_momentum=False,
        )

    expected = rates_of(theirs, updates - 1)
    assert [factor(ours, update, updates, 10) for update in range(updates - 1)] == pytest.approx(expected, rel=1e-9)
    assert factor(ours, updates - 1, updates, 10) == pytest.approx(1 / 25e4)


def test_cosine_is_that_of_torch_after_a_linear_warm_up():
    ours = CosineSchedule(name="cosine", warmup_epochs=2, start=0.1, end=0.01)
    warm = rates_of(lambda optimizer: LinearLR(optimizer, 0.1, 1.0, 20), 20)
    down = rates_of(lambda optimizer: CosineAnnealingLR(optimizer, 80, eta_min=0.01), 80)
    assert [factor(ours, update, 100, 10) for update in range(100)] == pytest.approx(warm + down, rel=1e-9)


def test_steps_are_those_of_torch():
    ours = StepSchedule(name="steps", milestones=(3.0, 5.0), factor=0.1)
    expected = rates_of(lambda optimizer: MultiStepLR(optimizer, [30, 50], 0.1), 80)
    assert [factor(ours, update, 80, 10) for update in range(80)] == pytest.approx(expected)


def test_constant_stays_and_short_runs_work():
    assert {factor(ConstantSchedule(name="constant"), update, 9, 3) for update in range(9)} == {1.0}
    one = OneCycleSchedule(name="onecycle", peak=0.3, start=0.1, end=0.0, shape="cosine")
    assert all(0 <= factor(one, update, total, 1) <= 1 for total in (1, 2, 3) for update in range(total))
    warm = CosineSchedule(name="cosine", warmup_epochs=5, start=0.0, end=0.0)
    assert [factor(warm, update, 3, 1) for update in range(3)] == pytest.approx([0, 0.2, 0.4])


def test_layer_wise_factors_stay():
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1], "lr_scale": 0.5}, {"params": weights[1:]}], lr=1.0)
    set_learning_rate(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
