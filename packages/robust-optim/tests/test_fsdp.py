"""Weights that are sharded over two processes."""

import copy
import io

import pytest
import torch
import torch.distributed as dist
from robust_optim import AWP, ESAM, GSAM, SAM, LookSAM
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.two_ranks

METHODS = {
    "SAM": lambda base, model, **given: SAM(base, rho=0.3, model=model, **given),
    "ASAM": lambda base, model, **given: SAM(base, rho=0.3, adaptive=True, eta=0.1, model=model, **given),
    "F-SAM": lambda base, model, **given: SAM(base, rho=0.3, friendly=0.8, decay=0.6, model=model, **given),
    "GSAM": lambda base, model, **given: GSAM(base, rho=0.3, alpha=0.4, model=model, **given),
    "LookSAM": lambda base, model, **given: LookSAM(base, rho=0.3, k=3, alpha=0.7, model=model, **given),
    "AWP": lambda base, model, **given: AWP(base, gamma=0.1, start=1, model=model, **given),
    "AWP step_first": lambda base, model, **given: AWP(base, gamma=0.1, order="step_first", model=model, **given),
    "ESAM": lambda base, model, **given: ESAM(base, rho=0.3, beta=0.5, gamma=1, model=model, **given),
}


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1), nn.Linear(1, 3)
        return nn.Sequential(*layers).double()


def sharded_network():
    """In two groups, some of the shards of unlike size, and some empty on the second rank."""
    model = network()
    fully_shard(model[2])
    return fully_shard(model)


def batch(number, rank=None):
    random = torch.Generator().manual_seed(1000 * number + (dist.get_rank() if rank is None else rank))
    return torch.randn(6, 5, generator=random, dtype=torch.float64), torch.randint(3, (6,), generator=random)


def joined_batch(number):
    (images, labels), (more_images, more_labels) = batch(number, 0), batch(number, 1)
    return torch.cat([images, more_images]), torch.cat([labels, more_labels])


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def update(optimizer, model, images, labels):
    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        (loss if optimizer.scaler is None else optimizer.scaler.scale(loss)).backward()
        return loss

    def losses(subset=None):
        chosen = slice(None) if subset is None else subset
        return cross_entropy(model(images[chosen]), labels[chosen], reduction="none")

    return optimizer.step(losses if isinstance(optimizer, ESAM) else closure)


def assert_close(sharded, plain):
    for a, b in zip(sharded.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.full_tensor().detach(), b.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scaled_and_clipped", [False, True], ids=["", "scaled and clipped"])
def test_sharded_weights_are_one_process_on_the_joined_batch(method, scaled_and_clipped):
    def start(model):
        if not scaled_and_clipped:
            return METHODS[method](sgd(model), model)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        return METHODS[method](sgd(model), model, scaler=scaler, clip=lambda p: nn.utils.clip_grad_norm_(p, 0.1))

    alone, model = network(), sharded_network()
    one, two = start(alone), start(model)
    for number in range(4):
        update(one, alone, *joined_batch(number))
        update(two, model, *batch(number))
        assert_close(model, alone)


@pytest.mark.parametrize("method", ["SAM", "F-SAM", "GSAM", "LookSAM", "AWP step_first"])
def test_an_overflow_in_one_shard_is_skipped_on_both_ranks(method):
    model = sharded_network()
    optimizer = METHODS[method](sgd(model), model, scaler=torch.amp.GradScaler("cpu", init_scale=64.0))
    overflow = False

    def spoil(gradient):
        if overflow and dist.get_rank() == 1:
            gradient.to_local()[0] = float("inf")

    model[0].weight.register_post_accumulate_grad_hook(lambda weight: spoil(weight.grad))
    for number in range(3):
        overflow = number == 1
        before = [p.full_tensor().detach().clone() for p in model.parameters()]
        update(optimizer, model, *batch(number))
        after = [p.full_tensor().detach() for p in model.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) == overflow
        assert all(a.isfinite().all() for a in after)
    assert optimizer.updates == 2
    assert optimizer.scaler.get_scale() == 32


@pytest.mark.parametrize("method", ["SAM", "F-SAM", "LookSAM", "ESAM coordinates"])
def test_saving_on_each_rank_and_resuming_is_an_unbroken_run_bit_for_bit(method):
    def start():
        model = sharded_network()
        if method == "ESAM coordinates":
            return model, ESAM(sgd(model), rho=0.3, beta=0.5, gamma=0.5, part="coordinates", model=model)
        return model, METHODS[method](sgd(model), model)

    def run(model, optimizer, numbers):
        for number in numbers:
            update(optimizer, model, *batch(number))

    unbroken, optimizer = start()
    run(unbroken, optimizer, range(4))
    model, optimizer = start()
    run(model, optimizer, range(2))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)  # of shards, on the rank that saved them
    model, optimizer = start()
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    run(model, optimizer, range(2, 4))
    for a, b in zip(model.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(a.to_local(), b.to_local())
    assert optimizer.updates == 4


def test_checkpoints_of_torch_take_the_base_optimizer():
    model, other = sharded_network(), sharded_network()
    optimizer, resumed = SAM(sgd(model), rho=0.3, model=model), SAM(sgd(other), rho=0.3, model=other)
    for number in range(2):
        update(optimizer, model, *batch(number))
    other.load_state_dict(model.state_dict())
    set_optimizer_state_dict(other, resumed.base, copy.deepcopy(get_optimizer_state_dict(model, optimizer.base)))
    for number in range(2, 4):
        update(optimizer, model, *batch(number))
        update(resumed, other, *batch(number))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.to_local(), b.to_local())


@pytest.mark.parametrize("method", METHODS)
def test_a_perturbation_per_rank_is_refused_because_no_rank_has_whole_gradients(method):
    model = sharded_network()
    with pytest.raises(ValueError, match=r"fully_shard|step_first"):
        METHODS[method](sgd(model), model, sync="per_rank")
    assert METHODS[method](sgd(model), model).sync == "global"


@pytest.mark.parametrize("inside", [False, True], ids=["", "inside of another module"])
def test_flat_shards_of_older_kind_are_refused(inside):
    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"))
    model = nn.Sequential(model) if inside else model
    with pytest.raises(TypeError, match=r"fully_shard"):
        SAM(sgd(model), model=model)
