"""Every test here runs in two processes: what one of them does is written down once, and both must agree with it."""

import io

import pytest
import torch
import torch.distributed as dist
from robust_optim import AWP, ESAM, GSAM, SAM, LookSAM, distributed
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.two_ranks

METHODS = {  # with settings that leave no part of a method without effect
    "SAM": lambda base, **given: SAM(base, rho=0.3, **given),
    "ASAM": lambda base, **given: SAM(base, rho=0.3, adaptive=True, eta=0.1, **given),
    "F-SAM": lambda base, **given: SAM(base, rho=0.3, friendly=0.8, decay=0.6, **given),
    "GSAM": lambda base, **given: GSAM(base, rho=0.3, alpha=0.4, **given),
    "LookSAM": lambda base, **given: LookSAM(base, rho=0.3, k=3, alpha=0.7, **given),
    "AWP": lambda base, **given: AWP(base, gamma=0.1, start=1, **given),
    "AWP step_first": lambda base, **given: AWP(base, gamma=0.1, order="step_first", **given),
    "ESAM": lambda base, **given: ESAM(base, rho=0.3, beta=0.5, gamma=0.5, **given),
    "ESAM coordinates": lambda base, **given: ESAM(base, rho=0.3, beta=0.5, gamma=0.5, part="coordinates", **given),
    "ESAM all images": lambda base, **given: ESAM(base, rho=0.3, beta=0.5, gamma=1, **given),
    "ESAM all": lambda base, **given: ESAM(base, rho=0.3, beta=1, gamma=1, **given),
}
MODES = [  # every method in every mode that it has
    (method, sync)
    for method in METHODS
    for sync in ("per_rank", "global")
    if (method, sync) != ("AWP step_first", "per_rank") and not method.startswith("ESAM all")
]


def network(dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)


def network_with_batch_norm():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))


def batch(number, rank=None, dtype=torch.float64):
    """The images and labels of a rank, by default of this one."""
    random = torch.Generator().manual_seed(1000 * number + (dist.get_rank() if rank is None else rank))
    return torch.randn(6, 5, generator=random, dtype=dtype), torch.randint(3, (6,), generator=random)


def joined_batch(number):
    (images, labels), (more_images, more_labels) = batch(number, 0), batch(number, 1)
    return torch.cat([images, more_images]), torch.cat([labels, more_labels])


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def wrapped(method, model, **given):
    return METHODS[method](sgd(model), model=model, **given)


def closure_of(model, optimizer, images, labels, loss_scale=1.0):
    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        scaled = loss * loss_scale
        (scaled if optimizer.scaler is None else optimizer.scaler.scale(scaled)).backward()
        return loss

    return closure


def losses_of(model, images, labels, loss_scale=1.0):
    def losses(subset=None):
        chosen = slice(None) if subset is None else subset
        return loss_scale * cross_entropy(model(images[chosen]), labels[chosen], reduction="none")

    return losses


def update(optimizer, model, images, labels, loss_scale=1.0):
    if isinstance(optimizer, ESAM):
        return optimizer.step(losses_of(model, images, labels, loss_scale))
    return optimizer.step(closure_of(model, optimizer, images, labels, loss_scale))


def assert_close(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=1e-12)


def spread(tensors):
    """How far the values of this rank are from those of rank 0, at most over all of them."""
    mine = torch.cat([tensor.detach().flatten() for tensor in tensors])
    first = mine.clone()
    dist.broadcast(first, src=0)
    return (mine - first).abs().max().item()


# sync="global": one process on the joined batch


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("ESAM", "ESAM coordinates")])
def test_global_is_one_process_on_the_joined_batch(method):
    alone, model = network(), DistributedDataParallel(network())
    one, two = wrapped(method, alone), wrapped(method, model, sync="global")
    for number in range(7):  # two cycles of LookSAM, and the start of a third
        update(one, alone, *joined_batch(number))
        update(two, model, *batch(number))
        assert_close(model.parameters(), alone.parameters())


def test_methods_that_store_or_step_elsewhere_are_global_unless_told_otherwise_and_the_others_per_rank():
    model = DistributedDataParallel(network())
    usual = {name: wrapped(name, model).sync for name in METHODS}
    assert {name for name, sync in usual.items() if sync == "global"} == {"GSAM", "LookSAM", "F-SAM", "AWP step_first"}


def test_closures_that_are_global_are_one_process_on_the_joined_parts():
    alone, model = network(), DistributedDataParallel(network())
    one, two = wrapped("GSAM", alone), wrapped("GSAM", model, sync="global")
    for number in range(4):
        one.step([closure_of(alone, one, *joined_batch(10 * number + part)) for part in range(3)])
        two.step([closure_of(model, two, *batch(10 * number + part)) for part in range(3)])
        assert_close(model.parameters(), alone.parameters())


# sync="per_rank": the formulas, on each rank's own gradients


def gradients_at(model, weights, images, labels):
    weights = [w.detach().requires_grad_() for w in weights]
    names = [name for name, _ in model.named_parameters()]
    logits = torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (images,))
    return torch.autograd.grad(cross_entropy(logits, labels), weights)


def inner(a, b):
    return sum((x * y).sum() for x, y in zip(a, b, strict=True))


def at_the_worst(gradient, w, direction, scales=None):
    """The gradient at w + e, with e of length 0.3 along the direction, where the scales are lengths."""
    scales = scales or [torch.ones_like(x) for x in w]
    scaled = [s * d for s, d in zip(scales, direction, strict=True)]
    factor = 0.3 / inner(scaled, scaled).sqrt()
    return gradient([x + factor * s * d for x, s, d in zip(w, scales, scaled, strict=True)])


def sam_formula(gradient, w, number, memory):
    return at_the_worst(gradient, w, gradient(w))


def asam_formula(gradient, w, number, memory):
    scales = [x.abs() + 0.1 if x.ndim == 2 else torch.ones_like(x) for x in w]
    return at_the_worst(gradient, w, gradient(w), scales)


def friendly_formula(gradient, w, number, memory):
    g = gradient(w)
    memory["m"] = [0.6 * m + 0.4 * x for m, x in zip(memory.get("m", [0.0] * len(g)), g, strict=True)]
    return at_the_worst(gradient, w, [x - 0.8 * m for x, m in zip(g, memory["m"], strict=True)])


def gsam_formula(gradient, w, number, memory):
    g = gradient(w)
    worst = at_the_worst(gradient, w, g)
    share = inner(g, worst) / inner(worst, worst)
    return [b - 0.4 * (a - share * b) for a, b in zip(g, worst, strict=True)]


def looksam_formula(gradient, w, number, memory):
    g = gradient(w)
    if number % 3 == 0:
        worst = at_the_worst(gradient, w, g)
        share = inner(worst, g) / inner(g, g)
        memory["v"] = [b - share * a for a, b in zip(g, worst, strict=True)]
        return worst
    pull = 0.7 * inner(g, g).sqrt() / inner(memory["v"], memory["v"]).sqrt()
    return [a + pull * v for a, v in zip(g, memory["v"], strict=True)]


def awp_formula(gradient, w, number, memory):
    g = gradient(w)
    if number < 1:
        return g
    return gradient([x + 0.1 * x.norm() * y / y.norm() if x.ndim == 2 else x for x, y in zip(w, g, strict=True)])


FORMULAS = {
    "SAM": sam_formula,
    "ASAM": asam_formula,
    "F-SAM": friendly_formula,
    "GSAM": gsam_formula,
    "LookSAM": looksam_formula,
    "AWP": awp_formula,
}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("method", FORMULAS)
def test_per_rank_is_the_average_of_the_formula_on_each_rank(method, parts):
    if parts > 1 and method in ("F-SAM", "LookSAM"):
        parts = 1  # they take one closure
    plain, model = network(), DistributedDataParallel(network())
    expected, optimizer = sgd(plain), wrapped(method, model, sync="per_rank")
    memories = [{}, {}]
    for number in range(7):
        w = [p.detach().clone() for p in plain.parameters()]
        locally = []
        for rank in range(2):
            for part in range(parts):
                images, labels = batch(10 * number + part, rank)
                gradient = lambda at, images=images, labels=labels: gradients_at(plain, at, images, labels)  # noqa: E731
                locally.append(FORMULAS[method](gradient, w, number, memories[rank]))
        for p, gradients in zip(plain.parameters(), zip(*locally, strict=True), strict=True):
            p.grad = sum(gradients) / len(gradients)
        expected.step()
        closures = [closure_of(model, optimizer, *batch(10 * number + part)) for part in range(parts)]
        optimizer.step(closures if parts > 1 else closures[0])
        assert_close(model.parameters(), plain.parameters())


@pytest.mark.parametrize("options", [{}, {"gradient_as_bucket_view": True}, {"find_unused_parameters": True}], ids=str)
def test_esam_per_rank_moves_the_same_tensors_on_all_ranks_and_averages_over_the_chosen_images(options):
    plain, model = network(), DistributedDataParallel(network(), **options)
    expected, optimizer = sgd(plain), wrapped("ESAM", model, sync="per_rank")
    moved_before = set()
    for number in range(6):
        images, labels = batch(number)
        w = [p.detach().clone() for p in plain.parameters()]
        seen = []

        def losses(subset=None, images=images, labels=labels, seen=seen):
            seen.append([p.detach().clone() for p in model.parameters()])
            return losses_of(model, images, labels)(subset)

        optimizer.step(losses)
        at_w, perturbed, again = seen
        assert_close(at_w, w)
        assert_close(perturbed, again)
        moved = [i for i, (a, b) in enumerate(zip(at_w, perturbed, strict=True)) if not torch.equal(a, b)]
        everywhere = [None, None]
        dist.all_gather_object(everywhere, moved)
        assert everywhere[0] == everywhere[1]
        moved_before.add(tuple(moved))
        locally = []
        for rank in range(2):
            x, y = batch(number, rank)
            g = gradients_at(plain, w, x, y)
            length = sum(g[i].square().sum() for i in moved).sqrt()
            worst = [a + 0.3 / 0.5 * b / length if i in moved else a for i, (a, b) in enumerate(zip(w, g, strict=True))]
            growth = []
            for at in (w, worst):
                names = [name for name, _ in plain.named_parameters()]
                logits = torch.func.functional_call(plain, dict(zip(names, at, strict=True)), (x,))
                growth.append(cross_entropy(logits, y, reduction="none"))
            chosen = (growth[1] - growth[0]).argsort(descending=True)[:3]
            locally.append(gradients_at(plain, worst, x[chosen], y[chosen]))
        for p, gradients in zip(plain.parameters(), zip(*locally, strict=True), strict=True):
            p.grad = sum(gradients) / 2
        expected.step()
        assert_close(model.parameters(), plain.parameters())
    assert len(moved_before) > 1  # other tensors in other updates


def test_the_loss_that_is_returned_is_that_of_the_rank_at_the_weights_before():
    for method in ("SAM", "GSAM", "ESAM", "LookSAM"):
        model = DistributedDataParallel(network())
        optimizer = wrapped(method, model)
        for number in range(2):
            expected = cross_entropy(model.module(batch(number)[0]), batch(number)[1]).detach()
            loss = update(optimizer, model, *batch(number))
            torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
            assert not loss.requires_grad
            if dist.get_rank() > 0:
                others = cross_entropy(model.module(batch(number, 0)[0]), batch(number, 0)[1])
                assert abs(loss - others) > 1e-3


# Weights stay the same on all ranks


@pytest.mark.parametrize(
    ("method", "sync"),
    [
        ("F-SAM", "per_rank"),
        ("GSAM", "per_rank"),
        ("LookSAM", "per_rank"),
        ("LookSAM", "global"),
        ("AWP", "per_rank"),
        ("AWP step_first", "global"),
        ("ESAM", "per_rank"),
    ],
)  # for SAM see the next test
def test_the_weights_are_bit_identical_on_both_ranks_after_100_steps(method, sync):
    model = DistributedDataParallel(network_with_batch_norm())
    optimizer = wrapped(method, model, sync=sync)
    for number in range(100):
        update(optimizer, model, *batch(number, dtype=torch.float32))
    assert spread(model.parameters()) == 0
    assert all(p.isfinite().all() for p in model.parameters())
    norm = model.module[1]
    assert norm.num_batches_tracked == 100  # the second pass and that of ESAM's losses are not counted


def test_subtracting_the_perturbation_would_let_the_ranks_drift_apart_and_copying_does_not():
    kept, drifting = (DistributedDataParallel(network(torch.float32)) for _ in range(2))
    optimizer, base = SAM(sgd(kept), rho=0.3, model=kept), sgd(drifting)
    for number in range(300):
        images, labels = batch(number, dtype=torch.float32)
        update(optimizer, kept, images, labels)
        with drifting.no_sync():
            base.zero_grad()
            cross_entropy(drifting(images), labels).backward()
        gradients = [p.grad.clone() for p in drifting.parameters()]
        length = inner(gradients, gradients).sqrt()
        with torch.no_grad():
            for p, g in zip(drifting.parameters(), gradients, strict=True):
                p.add_(0.3 * g / length)
        base.zero_grad()
        cross_entropy(drifting(images), labels).backward()
        with torch.no_grad():
            for p, g in zip(drifting.parameters(), gradients, strict=True):
                p.sub_(0.3 * g / length)
        base.step()
    assert spread(kept.parameters()) == 0
    assert (spread(drifting.parameters()) > 0) == (dist.get_rank() > 0)


# Batch norm


@pytest.mark.filterwarnings("ignore:`broadcast_buffers` is deprecated:FutureWarning")  # what replaces it is newer
@pytest.mark.parametrize(("method", "sync"), MODES)
def test_running_statistics_are_those_of_the_rank_at_the_weights_before_each_step(method, sync):
    model = DistributedDataParallel(network_with_batch_norm(), broadcast_buffers=False)
    linear, norm = model.module[0], model.module[1]
    optimizer = wrapped(method, model, sync=sync)
    mean, variance = torch.zeros(7), torch.ones(7)
    for number in range(5):
        images, labels = batch(number, dtype=torch.float32)
        features = linear(images).detach()
        mean = 0.9 * mean + 0.1 * features.mean(0)
        variance = 0.9 * variance + 0.1 * features.var(0)
        update(optimizer, model, images, labels)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
        assert norm.num_batches_tracked == number + 1
        assert norm.track_running_stats


@pytest.mark.parametrize("sync", ["per_rank", "global"])
def test_with_broadcast_buffers_rank_0_has_the_statistics_of_its_own_batches(sync):
    model = DistributedDataParallel(network_with_batch_norm())
    linear, norm = model.module[0], model.module[1]
    optimizer = wrapped("SAM", model, sync=sync)
    mean = torch.zeros(7)
    for number in range(5):
        features = linear(batch(number, 0, dtype=torch.float32)[0]).detach()
        mean = 0.9 * mean + 0.1 * features.mean(0)
        update(optimizer, model, *batch(number, dtype=torch.float32))
        if dist.get_rank() == 0:
            torch.testing.assert_close(norm.running_mean, mean)


# Rounds of communication


class Rounds:
    """Counts every averaging of gradients: by DistributedDataParallel and by the optimizer itself."""

    def __init__(self, model, monkeypatch):
        self.count = 0
        model.register_comm_hook(None, self._hook)
        self._all_reduce = dist.all_reduce
        monkeypatch.setattr(dist, "all_reduce", self._counted)

    def _hook(self, _, bucket):
        self.count += 1
        flat = bucket.buffer().div_(dist.get_world_size())
        return self._reduced(flat)

    def _reduced(self, flat):
        return self._all_reduce(flat, async_op=True).get_future().then(lambda future: future.value()[0])

    def _counted(self, *arguments, **options):
        self.count += 1
        return self._all_reduce(*arguments, **options)

    def of(self, call):
        before = self.count
        call()
        return self.count - before


@pytest.mark.parametrize(
    ("method", "sync", "expected"),
    [
        ("SAM", None, [1, 1, 1]),
        ("SAM", "global", [2, 2, 2]),
        ("ASAM", "per_rank", [1, 1, 1]),
        ("F-SAM", None, [2, 2, 2]),
        ("F-SAM", "per_rank", [1, 1, 1]),
        ("GSAM", None, [2, 2, 2]),
        ("GSAM", "per_rank", [1, 1, 1]),
        ("LookSAM", None, [2, 1, 1, 2, 1]),
        ("LookSAM", "per_rank", [1, 1, 1, 1]),
        ("AWP", None, [1, 1, 1]),
        ("AWP", "global", [1, 2, 2]),
        ("ESAM", None, [1, 1, 1]),
        ("ESAM coordinates", None, [1, 1, 1]),
        ("ESAM", "global", [2, 2, 2]),
    ],
)
def test_gradients_are_averaged_as_often_as_promised(method, sync, expected, monkeypatch):
    model = DistributedDataParallel(network())
    optimizer = wrapped(method, model, sync=sync)
    rounds = Rounds(model, monkeypatch)
    found = [rounds.of(lambda n=n: update(optimizer, model, *batch(n))) for n in range(len(expected))]
    assert found == expected


@pytest.mark.parametrize(("sync", "expected"), [("per_rank", 1), ("global", 6)])
def test_three_closures_are_averaged_at_once_or_each_twice(sync, expected, monkeypatch):
    model = DistributedDataParallel(network())
    optimizer = wrapped("SAM", model, sync=sync)
    rounds = Rounds(model, monkeypatch)
    for number in range(3):
        closures = [closure_of(model, optimizer, *batch(10 * number + part)) for part in range(3)]
        assert rounds.of(lambda closures=closures: optimizer.step(closures)) == expected


def test_gradients_are_averaged_in_buckets_of_one_dtype_and_a_size(monkeypatch):
    model = DistributedDataParallel(network())
    model.module[2].float()
    rounds = Rounds(model, monkeypatch)

    def gradients_of(rank):
        random = torch.Generator().manual_seed(rank)
        return [torch.randn(p.shape, generator=random, dtype=p.dtype) for p in model.parameters()]

    for size, expected in [(25 * 2**20, 2), (192, 4), (1, 6)]:  # float64: 280, 56, 144, 24 bytes; float32: 168, 24
        monkeypatch.setattr(distributed, "_BUCKET_BYTES", size)
        for p, gradient in zip(model.parameters(), gradients_of(dist.get_rank()), strict=True):
            p.grad = gradient
        assert rounds.of(lambda: distributed.average_gradients([*model.parameters()], model)) == expected
        for p, first, second in zip(model.parameters(), gradients_of(0), gradients_of(1), strict=True):
            torch.testing.assert_close(p.grad, (first + second) / 2)


# Options of DistributedDataParallel


@pytest.mark.parametrize(
    ("method", "option", "sync"),
    [
        (method, option, sync)
        for method, sync in MODES
        if method in ("SAM", "GSAM", "LookSAM", "AWP step_first", "ESAM")
        for option in ("gradient_as_bucket_view", "find_unused_parameters", "static_graph")
        if (option, sync) != ("static_graph", "per_rank")
    ],
)
def test_options_of_the_model_change_nothing(method, option, sync):
    plain, model = DistributedDataParallel(network()), DistributedDataParallel(network(), **{option: True})
    expected, optimizer = wrapped(method, plain, sync=sync), wrapped(method, model, sync=sync)
    for number in range(4):
        update(expected, plain, *batch(number))
        update(optimizer, model, *batch(number))
        assert_close(model.parameters(), plain.parameters())


def test_a_static_graph_is_refused_where_its_first_gradients_would_not_be_averaged():
    model = DistributedDataParallel(network(), static_graph=True)
    for sync in (None, "per_rank"):
        with pytest.raises(ValueError, match=r"static_graph.*sync=\"global\""):
            SAM(sgd(model), model=model, sync=sync)
    assert GSAM(sgd(model), model=model).sync == "global"


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.trunk = nn.Linear(5, 6).double()
            self.first, self.second, self.never = (nn.Linear(6, 3).double() for _ in range(3))

    def forward(self, images, first):
        hidden = self.trunk(images).tanh()
        return self.first(hidden) if first else self.second(hidden)


@pytest.mark.parametrize("method", ["SAM", "GSAM"])
def test_heads_that_only_one_rank_uses_are_averaged_with_zeros_and_unused_ones_stay(method):
    plain, model = TwoHeads(), DistributedDataParallel(TwoHeads(), find_unused_parameters=True)
    never = plain.never.weight.detach().clone()
    expected, optimizer = sgd(plain), wrapped(method, model, sync="per_rank")
    memories = [{}, {}]

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(images, first=first), labels)
        loss.backward()
        return loss

    for number in range(5):
        w = [p.detach().clone() for p in plain.parameters()]
        locally = []
        for rank in range(2):

            def gradient(at, rank=rank, number=number):
                names = [name for name, _ in plain.named_parameters()]
                at = [w.detach().requires_grad_() for w in at]
                x, y = batch(number, rank)
                logits = torch.func.functional_call(plain, dict(zip(names, at, strict=True)), (x, rank == number % 2))
                return torch.autograd.grad(cross_entropy(logits, y), at, allow_unused=True, materialize_grads=True)

            locally.append(FORMULAS[method](gradient, w, number, memories[rank]))
        for (name, p), gradients in zip(plain.named_parameters(), zip(*locally, strict=True), strict=True):
            p.grad = None if "never" in name else sum(gradients) / 2
        expected.step()
        (images, labels), first = batch(number), dist.get_rank() == number % 2
        optimizer.step(closure)
        assert_close(model.parameters(), plain.parameters())
    assert torch.equal(model.module.never.weight, never)  # not even decayed
    assert spread(model.parameters()) == 0


# Accumulation


@pytest.mark.parametrize("sync", ["per_rank", "global"])
@pytest.mark.parametrize("method", ["SAM", "GSAM", "LookSAM", "AWP"])
@pytest.mark.parametrize("as_view", [False, True], ids=["", "bucket view"])
def test_accumulating_with_no_sync_in_the_closure_is_one_large_batch(method, sync, as_view):
    large = DistributedDataParallel(network(), gradient_as_bucket_view=as_view)
    small = DistributedDataParallel(network(), gradient_as_bucket_view=as_view)
    whole, parts = wrapped(method, large, sync=sync), wrapped(method, small, sync=sync)

    def accumulate():
        parts.zero_grad()
        with small.no_sync():
            for chunk in (slice(0, 2), slice(2, 4)):
                (cross_entropy(small(images[chunk]), labels[chunk]) / 3).backward()
        loss = cross_entropy(small(images[4:]), labels[4:]) / 3
        loss.backward()
        return loss

    for number in range(4):
        images, labels = batch(number)
        update(whole, large, images, labels)
        parts.step(accumulate)
        assert_close(small.parameters(), large.parameters())


# Loss scaling


@pytest.mark.parametrize(("method", "sync"), MODES)
def test_a_gradient_that_overflows_on_one_rank_is_skipped_on_both(method, sync):
    model = DistributedDataParallel(network(torch.float32))
    optimizer = wrapped(method, model, sync=sync, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    for number in range(7):
        before = [p.detach().clone() for p in model.parameters()]
        overflows = number in (0, 2, 3)
        bad = overflows and dist.get_rank() == number % 2
        update(optimizer, model, *batch(number, dtype=torch.float32), loss_scale=float("inf") if bad else 1.0)
        same = all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
        assert same == overflows
        assert spread(model.parameters()) == 0
        counts = [None, None]
        dist.all_gather_object(counts, (optimizer.updates, optimizer.scaler.get_scale()))
        assert counts[0] == counts[1]
    assert optimizer.updates == 4
    assert optimizer.scaler.get_scale() == 2.0**7


def test_an_overflow_of_the_first_pass_alone_on_one_rank_leaves_that_rank_unperturbed_and_both_step():
    plain, model = network(), DistributedDataParallel(network())
    optimizer = wrapped("SAM", model, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    expected = sgd(plain)
    images, labels = batch(0)
    bad = dist.get_rank() == 1

    def closure():
        overflows = bad and optimizer.phase == "ascent"
        return closure_of(model, optimizer, images, labels, float("inf") if overflows else 1.0)()

    optimizer.step(closure)
    w = [p.detach().clone() for p in plain.parameters()]
    first = sam_formula(lambda at: gradients_at(plain, at, *batch(0, 0)), w, 0, {})
    second = gradients_at(plain, w, *batch(0, 1))
    for p, a, b in zip(plain.parameters(), first, second, strict=True):
        p.grad = (a + b) / 2
    expected.step()
    assert_close(model.parameters(), plain.parameters())
    assert optimizer.updates == 1


# State


@pytest.mark.parametrize(
    ("method", "sync"),
    [(m, s) for m, s in MODES if m in ("F-SAM", "LookSAM") or (s == "per_rank" and m in ("SAM", "GSAM", "ESAM"))],
)
def test_saving_on_each_rank_and_resuming_is_an_unbroken_run_bit_for_bit(method, sync):
    def start():
        model = DistributedDataParallel(network_with_batch_norm())
        return model, wrapped(method, model, sync=sync)

    def run(model, optimizer, numbers):
        for number in numbers:
            update(optimizer, model, *batch(number, dtype=torch.float32))

    unbroken, optimizer = start()
    run(unbroken, optimizer, range(8))
    model, optimizer = start()
    run(model, optimizer, range(5))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model, optimizer = start()
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    run(model, optimizer, range(5, 8))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), unbroken.parameters(), strict=True))
    assert optimizer.updates == 8


@pytest.mark.parametrize("method", ["SAM", "GSAM", "AWP", "LookSAM"])
def test_an_optimizer_whose_state_is_sharded_may_be_wrapped(method):
    plain, model = (DistributedDataParallel(network()) for _ in range(2))
    expected = wrapped(method, plain)
    sharded = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
    optimizer = METHODS[method](sharded, model=model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    plain_scheduler = torch.optim.lr_scheduler.StepLR(expected, 2, gamma=0.5)
    for number in range(5):
        update(expected, plain, *batch(number))
        plain_scheduler.step()
        update(optimizer, model, *batch(number))
        scheduler.step()
        assert_close(model.parameters(), plain.parameters())
