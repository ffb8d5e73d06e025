import copy
import pickle

import pytest
import torch
from robust_optim import AWP, SAM, LookSAM
from torch import nn

# Groups, state and schedulers of the base


def test_groups_and_state_are_those_of_the_base(bowl):
    valley, more = bowl(), nn.Parameter(torch.ones(2))
    base = torch.optim.SGD([valley.weights], lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=0.5)
    assert optimizer.param_groups is base.param_groups
    optimizer.step(valley.closure(optimizer))
    assert optimizer.state is base.state
    assert optimizer.state[valley.weights]["momentum_buffer"] is not None
    optimizer.add_param_group({"params": [more], "rho": 0.7})
    assert optimizer.param_groups is base.param_groups
    assert [group["rho"] for group in base.param_groups] == [0.5, 0.7]
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is base.param_groups
    base.load_state_dict(base.state_dict())
    assert optimizer.param_groups is base.param_groups


def test_a_group_that_is_added_is_trained_like_one_that_was_there(training, same, method):
    ours, theirs = training(), training()
    first, second = ours.groups(weight_decay=0.01)
    a = method(torch.optim.SGD([first], lr=0.1, momentum=0.9), model=ours.model)
    a.add_param_group(second)
    b = method(torch.optim.SGD(theirs.groups(weight_decay=0.01), lr=0.1, momentum=0.9), model=theirs.model)
    assert "momentum" not in second  # what the caller gave is not written to
    for batch in ours.batches(5):
        ours.step(a, *batch)
        theirs.step(b, *batch)
        assert same(ours.weights(), theirs.weights())


def test_gradients_are_cleared_on_either(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1))
    valley.weights.grad = torch.ones_like(valley.start)
    optimizer.zero_grad(set_to_none=False)
    assert torch.equal(valley.weights.grad, torch.zeros_like(valley.start))
    optimizer.zero_grad()
    assert valley.weights.grad is None


@pytest.mark.parametrize("on", ["wrapper", "base"])
@pytest.mark.parametrize("phases", ["step", "ascend and descend"])
def test_schedulers_act_on_the_base_optimizer_without_warning(bowl, on, phases):
    valley = bowl()
    base = torch.optim.SGD([valley.weights], lr=0.08)
    optimizer = SAM(base, rho=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer if on == "wrapper" else base, step_size=1, gamma=0.5)
    A, w = valley.A, valley.start
    for lr in [0.08, 0.04, 0.02]:
        if phases == "step":
            optimizer.step(valley.closure(optimizer))
        else:
            valley.closure(optimizer)()
            optimizer.ascend()
            valley.closure(optimizer)()
            optimizer.descend()
        scheduler.step()
        gradient = A @ w
        w = w - lr * (A @ (w + 0.5 * gradient / gradient.norm()))
        torch.testing.assert_close(valley.weights.detach(), w, rtol=1e-10, atol=1e-12)


def test_a_one_cycle_schedule_finds_the_momentum_of_the_base(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1, momentum=0.9))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=4, base_momentum=0.8)
    optimizer.step(valley.closure(optimizer))
    scheduler.step()
    assert 0.8 <= optimizer.base.param_groups[0]["momentum"] < 0.95


def test_hooks_of_a_step_run_once_an_update(bowl):
    valley, calls = bowl(), []
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1))
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.base.register_step_post_hook(lambda *_: calls.append("base"))
    optimizer.step(valley.closure(optimizer))
    assert calls == ["before", "base", "after"]


# The radius of a group


def test_rho_may_be_scheduled_in_the_groups(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.5)
    optimizer.param_groups[0]["rho"] = 0.25
    valley.weights.grad = valley.A @ valley.start
    optimizer.ascend()
    torch.testing.assert_close((valley.weights.detach() - valley.start).norm().item(), 0.25)


def test_the_rho_of_the_last_wrapper_counts_except_where_the_caller_put_one():
    first, second, third = (nn.Parameter(torch.ones(2)) for _ in range(3))
    base = torch.optim.SGD([{"params": [first]}, {"params": [second], "rho": 0.2}], lr=0.1)
    SAM(base, rho=0.05).add_param_group({"params": [third]})
    assert [group["rho"] for group in base.param_groups] == [0.05, 0.2, 0.05]
    base.load_state_dict(base.state_dict())
    SAM(base, rho=0.5)
    assert [group["rho"] for group in base.param_groups] == [0.5, 0.2, 0.5]
    base.param_groups[0]["rho"] = 0.3
    SAM(base, rho=0.7)
    assert [group["rho"] for group in base.param_groups] == [0.3, 0.2, 0.7]


def test_two_methods_around_one_base_have_radii_of_their_own_names():
    model = nn.Linear(2, 2)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    SAM(base, rho=0.5)
    AWP(base, model=model, gamma=0.02)
    assert (base.param_groups[0]["rho"], base.param_groups[0]["gamma"]) == (0.5, 0.02)


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_a_rho_out_of_range_is_refused_wherever_it_is_set(bowl, rho):
    valley = bowl()
    with pytest.raises(ValueError, match="at least 0"):
        SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=rho)
    with pytest.raises(ValueError, match="at least 0"):
        SAM(torch.optim.SGD([{"params": [valley.weights], "rho": rho}], lr=0.1))
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1))
    with pytest.raises(ValueError, match="at least 0"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "rho": rho})
    assert len(optimizer.param_groups) == 1
    optimizer.param_groups[0]["rho"] = rho
    with pytest.raises(ValueError, match="at least 0"):
        optimizer.step(valley.closure(optimizer))
    assert not valley.moved()


@pytest.mark.parametrize("rho", ["0.05", None, [0.05]], ids=str)
def test_a_rho_that_is_no_number_is_refused_wherever_it_is_set(bowl, rho):
    valley = bowl()
    with pytest.raises(TypeError, match=r"rho must be a number, such as 0\.05, got .* of type"):
        SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=rho)
    with pytest.raises(TypeError, match="rho must be a number"):
        SAM(torch.optim.SGD([{"params": [valley.weights], "rho": rho}], lr=0.1))
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1))
    with pytest.raises(TypeError, match="rho must be a number"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "rho": rho})
    optimizer.param_groups[0]["rho"] = rho
    with pytest.raises(TypeError, match="rho must be a number"):
        optimizer.step(valley.closure(optimizer))
    assert not valley.moved()


# Resuming and copying


class Run:
    """A network, an optimizer around it and a scheduler, which go into a checkpoint together."""

    def __init__(self, training, method, base):
        self.training = training(dtype=torch.float32, batch_norm=True)
        parameters = self.training.groups(weight_decay=0.01)
        self.optimizer = method(base(parameters), model=self.training.model)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)

    def go(self, batches):
        for batch in batches:
            self.training.step(self.optimizer, *batch)
            self.scheduler.step()

    def parts(self):
        return {"model": self.training.model, "optimizer": self.optimizer, "scheduler": self.scheduler}


@pytest.mark.parametrize("at", [1, 5])  # for LookSAM both lie between two perturbed updates
def test_saving_loading_and_going_on_is_the_unbroken_run_bit_for_bit(training, same, method, base, at, tmp_path):
    unbroken, first, second = (Run(training, method, base) for _ in range(3))
    batches = unbroken.training.batches(10)
    unbroken.go(batches)
    first.go(batches[:at])
    torch.save({name: part.state_dict() for name, part in first.parts().items()}, tmp_path / "checkpoint.pt")
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name, part in second.parts().items():
        part.load_state_dict(checkpoint[name])
    assert second.optimizer.updates == at
    second.go(batches[at:])
    assert same(second.training.model.state_dict().values(), unbroken.training.model.state_dict().values())


def test_the_rho_of_the_checkpoint_counts(bowl):
    valley = bowl()
    state = SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.1).state_dict()
    resumed = SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.9)
    resumed.load_state_dict(state)
    assert resumed.param_groups[0]["rho"] == 0.1


def test_what_is_loaded_is_a_copy_of_the_state(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), friendly=1.0)
    optimizer.step(valley.closure(optimizer))
    state = optimizer.state_dict()
    mean = state["wrapper"]["directions"][0].clone()
    other = SAM(torch.optim.SGD([valley.weights], lr=0.1), friendly=1.0)
    other.load_state_dict(state)
    other.directions[valley.weights].zero_()
    assert torch.equal(state["wrapper"]["directions"][0], mean)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
@pytest.mark.parametrize("scheduled", [False, True], ids=["", "scheduled"])
def test_a_copy_of_model_and_optimizer_goes_on_alike_and_apart(training, same, method, clone, scheduled):
    ours, twin = training(), training()
    optimizer = method(torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), model=ours.model)
    if scheduled:  # puts a `step` of its own on the optimizer, which drives this one and no other
        torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    batches = ours.batches(6)
    ours.run(optimizer, batches[:2])
    before = ours.weights()
    twin.model, other = clone((ours.model, optimizer))
    assert other.updates == 2
    twin.run(other, batches[2:])
    assert same(ours.weights(), before)
    ours.run(optimizer, batches[2:])
    assert same(twin.weights(), ours.weights())
    assert not same(ours.weights(), before)


def test_between_the_passes_nothing_is_saved_loaded_or_copied(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.5)
    state = optimizer.state_dict()
    valley.closure(optimizer)()
    optimizer.ascend()
    for call, message in [
        (optimizer.state_dict, "cannot be saved"),
        (lambda: optimizer.load_state_dict(state), "cannot be loaded"),
        (lambda: copy.deepcopy(optimizer), "cannot be copied"),
        (lambda: pickle.dumps(optimizer), "cannot be copied"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            call()
    optimizer.restore()
    optimizer.load_state_dict(optimizer.state_dict())


def test_states_of_something_else_are_refused_with_both_names(bowl):
    valley = bowl()
    optimizer = SAM(torch.optim.SGD([valley.weights], lr=0.1))
    optimizer.step(valley.closure(optimizer))
    state = optimizer.state_dict()
    for other, message in [
        (SAM(torch.optim.AdamW([valley.weights], lr=0.1)), r"SAM\(SGD\), version 1 into SAM\(AdamW\), version 1"),
        (LookSAM(torch.optim.SGD([valley.weights], lr=0.1)), r"SAM\(SGD\), version 1 into LookSAM\(SGD\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(state)
        assert other.updates == 0
    with pytest.raises(ValueError, match=r"SAM\(SGD\), version 2 into SAM\(SGD\), version 1"):
        optimizer.load_state_dict({**state, "wrapper": {**state["wrapper"], "version": 2}})
    with pytest.raises(ValueError, match=r"optimizer.base.load_state_dict"):
        optimizer.load_state_dict(optimizer.base.state_dict())
    optimizer.base.load_state_dict(torch.optim.SGD([valley.weights], lr=0.3).state_dict())  # as the message shows
    assert optimizer.param_groups[0]["lr"] == 0.3
    optimizer.step(valley.closure(optimizer))  # a group without a rho takes the constructor's


@pytest.mark.parametrize("counts", [(4,), (3, 1)], ids=["another number of groups", "other numbers of parameters"])
def test_a_state_of_other_groups_is_refused_and_nothing_is_loaded(training, counts):
    ours, theirs = training(), training()
    optimizer = SAM(torch.optim.SGD(ours.groups(), lr=0.1))
    ours.run(optimizer, ours.batches(2))
    parameters = iter(theirs.parameters())
    groups = [{"params": [next(parameters) for _ in range(count)]} for count in counts]
    other = SAM(torch.optim.SGD(groups, lr=0.3))
    with pytest.raises(ValueError, match="loaded state dict"):
        other.load_state_dict(optimizer.state_dict())
    assert other.updates == 0
    assert other.param_groups[0]["lr"] == 0.3


# Mistakes


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (lambda p: torch.optim.SGD, "got the class SGD; wrap an optimizer that is built already"),
        (lambda p: nn.Linear(2, 2), "got Linear; wrap an optimizer"),
        (lambda p: p, r"got list; wrap an optimizer that is built already: SAM\(torch.optim.SGD\("),
        (lambda p: SAM(torch.optim.SGD(p, lr=0.1)), "wrapped in SAM already"),
        (torch.optim.LBFGS, "LBFGS"),
        (torch.optim.Adadelta, r"Adadelta has a setting of its own called rho.*SGD"),
    ],
    ids=["class", "module", "parameters", "twice", "LBFGS", "a rho of its own"],
)
def test_only_a_built_optimizer_can_be_wrapped(bowl, base, message):
    with pytest.raises(TypeError, match=message):
        SAM(base([bowl().weights]))
