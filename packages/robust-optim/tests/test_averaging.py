import copy
import weakref

import pytest
import torch
from robust_optim.averaging import WeightAverage
from robust_optim.batch_norm import reestimate_batch_norm
from robust_optim.decay import PowerWarmUp, RatioWarmUp, equal_weights
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode


class Network(nn.Module):
    """Tied and frozen weights, statistics, and buffers of other kinds."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, inputs):
        return self.second(self.norm(self.first(inputs)).tanh()) * self.frozen


def network(dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network().to(dtype)


def step(model, number):
    """What an optimizer and a forward pass do to a model: move everything."""
    random = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=random).to(parameter.dtype)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm1d):
                norm.running_mean += torch.randn(4, generator=random).to(norm.running_mean.dtype)
                norm.num_batches_tracked += 1
        model.seen += 2
        model.scratch += 1


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def run(average, model, steps):
    """The weights before the first step and after every step."""
    visited = [snapshot(model)]
    for number in steps:
        step(model, number)
        average.update()
        visited.append(snapshot(model))
    return visited


def weighted(visited, weights, name):
    """The sum of weights that add up to one: an average written down without recursion."""
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    return sum(weight * state[name] for weight, state in zip(weights, visited, strict=True))


def weights_of(decays):
    """The share of each visited state, the first one included, after updates with these decays."""
    weights = [1.0]
    for decay in decays:
        weights = [decay * weight for weight in weights] + [1 - decay]
    return weights


def assert_bit_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert torch.equal(a[name], b[name]), name


PARAMETERS = ["first.weight", "first.bias", "norm.weight", "norm.bias", "second.weight", "second.bias", "frozen"]
STATISTICS = ["norm.running_mean", "norm.running_var"]
COUNTERS = ["norm.num_batches_tracked", "seen"]


# The rules

RULES = {
    "constant": (0.9, lambda t: 0.9),
    "integer": (1, lambda t: 1),
    "ratio": (RatioWarmUp(0.6), lambda t: (0.1, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 9 / 18)[t]
              if t < 9 else min(0.6, (1 + t) / (10 + t))),
    "power": (PowerWarmUp(0.8, gamma=2.0, power=0.75), lambda t: min(0.8, 1 - 1 / (1 + t / 2) ** 0.75)),
    "function": (lambda t: 1 / (t + 2), lambda t: 1 / (t + 2)),
}  # fmt: skip


@pytest.mark.parametrize("start", [0, 1, 5])
@pytest.mark.parametrize(("rule", "formula"), RULES.values(), ids=RULES.keys())
def test_twenty_updates_are_the_weighted_sum_of_the_visited_weights(rule, formula, start):
    model = network()
    average = WeightAverage(model, decay=rule, start=start)
    visited = run(average, model, range(20))
    weights = weights_of([0.0] * start + [formula(t) for t in range(20 - start)])
    result = average.model_state_dict()
    for name in PARAMETERS:
        torch.testing.assert_close(result[name], weighted(visited, weights, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("start", "every"), [(0, 1), (3, 1), (0, 4), (2, 5)])
def test_stochastic_weight_averaging_is_the_mean_of_every_nth_weights(start, every):
    model = network()
    average = WeightAverage(model, decay=equal_weights, start=start, every=every)
    visited = run(average, model, range(20))
    taken = [visited[k] for k in range(1, 21) if k > start and (k - start) % every == 0]
    result = average.model_state_dict()
    for name in PARAMETERS:
        mean = torch.stack([state[name] for state in taken]).mean(dim=0)
        torch.testing.assert_close(result[name], mean, rtol=1e-12, atol=1e-12)
    assert torch.equal(result["norm.running_mean"], taken[-1]["norm.running_mean"])  # of the last one averaged


def test_a_late_average_is_a_copy_until_it_starts():
    model = network()
    average = WeightAverage(model, decay=RatioWarmUp(0.995), start=3)
    for number in range(3):
        run(average, model, [number])
        assert_bit_equal(average.model_state_dict(), snapshot(model))
    before = snapshot(model)
    run(average, model, [3])
    expected = 0.1 * before["first.bias"] + 0.9 * model.first.bias.detach()
    torch.testing.assert_close(average.model_state_dict()["first.bias"], expected, rtol=1e-12, atol=1e-12)


def test_between_two_averaged_updates_nothing_happens():
    model = network()
    average = WeightAverage(model, decay=0.5, start=1, every=3)
    run(average, model, [0])
    at_start = average.model_state_dict()
    run(average, model, [1, 2])
    assert_bit_equal(average.model_state_dict(), at_start)
    run(average, model, [3])
    expected = (at_start["first.bias"] + model.first.bias.detach()) / 2
    torch.testing.assert_close(average.model_state_dict()["first.bias"], expected, rtol=1e-12, atol=1e-12)


def test_a_model_that_stands_still_is_its_own_average():
    model = network(torch.float32)
    average = WeightAverage(model, decay=0.97, buffers="average")
    for _ in range(50):
        average.update()
    assert_bit_equal(average.model_state_dict(), snapshot(model))


@pytest.mark.parametrize("buffers", ["copy", "average"])
def test_buffers_are_copied_or_averaged_and_counters_always_copied(buffers):
    model = network()
    average = WeightAverage(model, decay=0.7, buffers=buffers)
    visited = run(average, model, range(6))
    result = average.model_state_dict()
    for name in STATISTICS:
        if buffers == "average":
            expected = weighted(visited, weights_of([0.7] * 6), name)
            torch.testing.assert_close(result[name], expected, rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(result[name], visited[-1][name])
    for name in COUNTERS:
        assert torch.equal(result[name], visited[-1][name])


def test_averages_in_low_precision_are_kept_in_float32():
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, decay=0.99)
    nn.init.constant_(model.weight, 1.0078125)  # the next number of bfloat16: one step is a hundredth of the distance
    for _ in range(200):
        average.update()
    kept = average.state_dict()["average"]["weight"]
    torch.testing.assert_close(kept, torch.tensor([[1 + 0.0078125 * (1 - 0.99**200)]]), rtol=1e-6, atol=0)
    exported = average.model_state_dict()["weight"]
    assert exported.dtype == torch.bfloat16
    assert exported.item() == 1.0078125


def test_complex_weights_are_averaged():
    model = nn.ParameterDict({"z": nn.Parameter(torch.tensor([1 + 2j]))})
    average = WeightAverage(model, decay=0.75)
    with torch.no_grad():
        model["z"].copy_(torch.tensor([5 - 2j]))
    average.update()
    torch.testing.assert_close(average.model_state_dict()["z"], torch.tensor([2 + 1j]))


# Other implementations


@pytest.mark.parametrize("use_buffers", [False, True])
def test_torch_gives_the_same_exponential_average(use_buffers):
    model = network()
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=use_buffers)
    # Its first update is a copy; with buffers it rounds counters, ours are copied.
    ours = WeightAverage(model, decay=0.8, start=1, buffers="average" if use_buffers else "copy")
    for number in range(10):
        run(ours, model, [number])
        torchs.update_parameters(model)
    result, expected = ours.model_state_dict(), torchs.module.state_dict()
    for name in PARAMETERS + STATISTICS:
        torch.testing.assert_close(result[name], expected[name], rtol=1e-12, atol=1e-12)


def test_torch_gives_the_same_equal_average():
    model = network()
    torchs = AveragedModel(model)
    ours = WeightAverage(model, decay=equal_weights)
    for number in range(10):
        run(ours, model, [number])
        torchs.update_parameters(model)
    for name, expected in torchs.module.state_dict().items():
        torch.testing.assert_close(ours.model_state_dict()[name], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("warmup", [False, True])
def test_timm_gives_the_same_average(warmup):
    timm_utils = pytest.importorskip("timm.utils")
    model = network()
    model.second.weight = nn.Parameter(model.second.weight.detach().clone())  # timm moves tied weights twice
    timms = timm_utils.ModelEmaV3(model, decay=0.7, use_warmup=warmup, warmup_gamma=1.5)
    decay = PowerWarmUp(0.7, gamma=1.5) if warmup else 0.7
    ours = WeightAverage(model, decay=decay, start=0 if warmup else 1, buffers="average")  # timm's step 1 is a copy
    for number in range(12):
        run(ours, model, [number])
        timms.update(model, step=number + 1)
    for name, expected in timms.module.state_dict().items():
        torch.testing.assert_close(ours.model_state_dict()[name], expected, rtol=1e-12, atol=1e-12)


# Applying the average


def begun(dtype=torch.float32, **settings):
    model = network(dtype)
    average = WeightAverage(model, **{"decay": 0.5, **settings})
    run(average, model, range(4))
    return model, average


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("buffers", ["copy", "average"])
def test_the_average_is_in_the_model_inside_the_block_and_nothing_is_lost(dtype, buffers):
    model, average = begun(dtype, buffers=buffers)
    online, exported, kept = snapshot(model), average.model_state_dict(), copy.deepcopy(average.state_dict())
    assert not torch.equal(online["frozen"], exported["frozen"])
    scratch = model.scratch.clone()
    for _ in range(2):
        with average.applied():
            assert_bit_equal(snapshot(model), exported)
            assert torch.equal(model.scratch, scratch)
        assert_bit_equal(snapshot(model), online)
        assert_bit_equal(average.state_dict()["average"], kept["average"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_tensor_moves_in_memory(dtype):
    model, average = begun(dtype)

    def where():
        return [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]

    places, identities = where(), [id(p) for p in model.parameters()]
    with average.applied():
        assert where() == places
    assert where() == places
    assert [id(p) for p in model.parameters()] == identities


class AliveClones(TorchDispatchMode):
    """The largest number of elements in copies that were alive at the same time."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.clone.default:
            self.alive.append(weakref.ref(out))
            self.most = max(self.most, sum(r().numel() for r in self.alive if r() is not None))
        return out


def test_the_exchange_makes_no_copy_of_the_model():
    model = nn.Sequential(*[nn.Linear(8, 8, bias=False) for _ in range(10)])
    average = WeightAverage(model, decay=0.5)
    clones = AliveClones()
    with clones, average.applied():
        pass
    assert len(clones.alive) == 20
    assert clones.most <= 2 * 64  # of 640


def test_an_exception_inside_brings_the_online_weights_back():
    model, average = begun()
    online = snapshot(model)
    with pytest.raises(KeyError, match="in evaluation"), average.applied():
        raise KeyError("in evaluation")
    assert_bit_equal(snapshot(model), online)
    with average.applied():  # and it can be applied again
        pass


def test_a_failure_in_the_middle_of_the_exchange_is_undone():
    class Full(TorchDispatchMode):
        left = 4

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.clone.default:
                self.left -= 1
                if self.left == 0:
                    raise torch.OutOfMemoryError("no memory for the fourth tensor")
            return function(*args, **(kwargs or {}))

    model, average = begun()
    online, kept = snapshot(model), copy.deepcopy(average.state_dict())
    with pytest.raises(torch.OutOfMemoryError), Full(), average.applied():
        pass
    assert_bit_equal(snapshot(model), online)
    assert_bit_equal(average.state_dict()["average"], kept["average"])


def test_training_does_not_notice_evaluations_of_the_average():
    def train(evaluate):
        model = network(torch.float32).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        average = WeightAverage(model, decay=0.9)
        random = torch.Generator().manual_seed(1)
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.randn(8, 4, generator=random)).square().mean().backward()
            optimizer.step()
            average.update()
            if evaluate:
                with average.applied(), torch.no_grad():
                    model.eval()(torch.ones(2, 4))
                model.train()
        return snapshot(model), average.model_state_dict()

    for a, b in zip(train(evaluate=True), train(evaluate=False), strict=True):
        assert_bit_equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_statistics_measured_inside_stay_with_the_average(dtype):
    model, average = begun(dtype)
    online = snapshot(model)
    random = torch.Generator().manual_seed(2)
    images = [torch.randn(16, 4, generator=random).to(dtype) for _ in range(2)]
    with average.applied():
        reestimate_batch_norm(model, images)
        measured = snapshot(model)
    assert_bit_equal(snapshot(model), online)
    assert_bit_equal(average.model_state_dict(), measured)
    assert not torch.equal(measured["norm.running_mean"], online["norm.running_mean"])


def test_in_low_precision_only_what_changes_inside_is_rounded():
    model, average = begun(torch.bfloat16)
    before = copy.deepcopy(average.state_dict()["average"])
    with average.applied(), torch.no_grad():
        model.first.bias[0] = 3.0
    after = average.state_dict()["average"]
    assert after["first.bias"][0] == 3.0
    assert torch.equal(after["first.bias"][1:], before["first.bias"][1:])
    assert torch.equal(after["first.weight"], before["first.weight"])
    assert not torch.equal(before["first.weight"], before["first.weight"].bfloat16().float())  # there was precision


def test_inside_an_outer_autocast_the_averaged_weights_are_seen():
    model = nn.Linear(4, 4)
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        model.weight.zero_()
    inputs = torch.ones(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        online = model(inputs)
        with average.applied():
            assert not torch.equal(model(inputs), online)
        assert torch.equal(model(inputs), online)


def test_a_compiled_model_is_not_compiled_anew():
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model = nn.Linear(4, 4).requires_grad_(False)
    compiled = torch.compile(model, backend=count)
    average = WeightAverage(compiled, decay=0.5)
    inputs = torch.ones(1, 4)
    compiled(inputs)
    model.weight.zero_()
    average.update()
    with average.applied():
        torch.testing.assert_close(compiled(inputs), model(inputs))
        assert model.weight.abs().sum() > 0
    assert torch.equal(compiled(inputs), model.bias.expand(1, 4))
    assert len(graphs) == 1
    torch._dynamo.reset()


# Which tensors


def test_tied_weights_are_averaged_once_and_stay_tied(tmp_path):
    model, average = begun()
    assert {"first.weight", "second.weight"} & average.state_dict()["average"].keys() == {"first.weight"}
    with average.applied():
        assert model.first.weight is model.second.weight
    assert model.first.weight is model.second.weight
    exported = average.model_state_dict()
    assert exported.keys() == model.state_dict().keys()
    assert exported["first.weight"] is exported["second.weight"]
    torch.save(exported, tmp_path / "model.pt")
    twin = network(torch.float32)
    twin.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert_bit_equal(snapshot(twin), exported)


def test_an_export_is_independent_of_model_and_average():
    model, average = begun()
    exported = average.model_state_dict()
    before = {name: tensor.clone() for name, tensor in exported.items()}
    run(average, model, [9, 10])
    with average.applied():
        pass
    assert_bit_equal(exported, before)
    assert not any(tensor.requires_grad for tensor in exported.values())


def test_parameters_that_share_memory_without_being_tied_come_back():
    whole = nn.Parameter(torch.arange(6.0))
    model = nn.ParameterDict({"whole": whole, "part": nn.Parameter(whole.data[2:5])})
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        whole.mul_(3)
    average.update()
    online, kept = snapshot(model), copy.deepcopy(average.state_dict()["average"])
    for _ in range(2):
        with average.applied():
            torch.testing.assert_close(model["whole"].detach(), torch.arange(6.0) * 2)
        assert_bit_equal(snapshot(model), online)
        assert_bit_equal(average.state_dict()["average"], kept)


def test_there_is_no_graph_and_flags_stay():
    model, average = begun()
    flags = [parameter.requires_grad for parameter in model.parameters()]
    average.update()
    assert not any(tensor.requires_grad for tensor in average.state_dict()["average"].values())
    with average.applied():
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
        assert all(parameter.is_leaf for parameter in model.parameters())
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_host_never_waits_for_a_value(dtype):
    with torch.device("meta"):  # where there are no values
        model = Network().to(dtype)
    average = WeightAverage(model, decay=0.5)
    average.update()
    with average.applied():
        pass
    assert average.model_state_dict()["frozen"].is_meta


def test_the_average_follows_a_model_that_changes_its_type():
    model = network(torch.float32)
    average = WeightAverage(model, decay=0.5, buffers="average")
    run(average, model, [0])
    at_first = average.model_state_dict()
    model.double()  # which makes new buffers
    visited = run(average, model, [1])
    result = average.model_state_dict()
    for name in PARAMETERS + STATISTICS:
        assert result[name].dtype == torch.float64
        expected = (at_first[name].double() + visited[-1][name]) / 2
        torch.testing.assert_close(result[name], expected, rtol=1e-12, atol=1e-12)
    online = snapshot(model)
    with average.applied():
        assert_bit_equal(snapshot(model), result)
    assert_bit_equal(snapshot(model), online)


def test_a_model_that_changes_its_type_inside_the_block_gets_its_online_weights():
    model, average = begun(torch.float32)
    online = snapshot(model)
    with average.applied():
        model.double()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, online[name].to(tensor.dtype))


def gain(model):
    model.extra = nn.Parameter(torch.ones(1))


def lose(model):
    del model.frozen


def grow(model):
    model.first = nn.Linear(4, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (gain, "unexpected 'extra'"),
        (lose, "missing 'frozen'"),
        (grow, r"'first.bias' has shape \(5,\) instead of \(4,\)"),
    ],
)
def test_a_model_with_other_parameters_is_refused(change, message):
    model, average = begun()
    change(model)
    for use in (average.update, average.model_state_dict, lambda: average.applied().__enter__()):
        with pytest.raises(RuntimeError, match=f"the model has changed since its average was begun: .*{message}"):
            use()
    assert average.updates == 4


def test_a_model_that_gains_a_parameter_inside_the_block_still_gets_the_others_back():
    model, average = begun()
    online = snapshot(model)
    with average.applied():
        gain(model)
    del model.extra
    assert_bit_equal(snapshot(model), online)


def test_a_wrapped_model_is_averaged_under_the_names_of_its_state_dict(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed package")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = network(torch.float32)
        wrapped = nn.parallel.DistributedDataParallel(model)
        outer, inner = WeightAverage(wrapped, decay=0.5), WeightAverage(wrapped.module, decay=0.5)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.5)
        wrapped(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
        outer.update()
        inner.update()
        assert outer.model_state_dict().keys() == wrapped.state_dict().keys()
        assert_bit_equal(
            {name.removeprefix("module."): tensor for name, tensor in outer.model_state_dict().items()},
            inner.model_state_dict(),
        )
        online = snapshot(model)
        with outer.applied():
            assert_bit_equal(snapshot(model), inner.model_state_dict())
            wrapped(torch.randn(8, 4))
        torch.testing.assert_close(snapshot(model)["first.weight"], online["first.weight"], rtol=0, atol=0)
    finally:
        torch.distributed.destroy_process_group()


# State


@pytest.mark.parametrize("stop", [0, 2, 5, 6, 9])  # among the copies, at the start, between two averaged updates
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "decay", [0.9, RatioWarmUp(0.9), equal_weights], ids=["a number", "a warm-up", "equal weights"]
)
def test_saving_loading_and_going_on_is_an_unbroken_run_bit_for_bit(decay, dtype, stop, tmp_path):
    settings = {"decay": decay, "start": 4, "every": 2, "buffers": "average"}
    unbroken, first, second = (network(dtype) for _ in range(3))
    whole = WeightAverage(unbroken, **settings)
    run(whole, unbroken, range(12))
    average = WeightAverage(first, **settings)
    run(average, first, range(stop))
    torch.save({"model": first.state_dict(), "average": average.state_dict()}, tmp_path / "checkpoint.pt")
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second.load_state_dict(checkpoint["model"])
    resumed = WeightAverage(second, **settings)
    resumed.load_state_dict(checkpoint["average"])
    run(resumed, second, range(stop, 12))
    assert resumed.updates == 12
    assert_bit_equal(resumed.state_dict()["average"], whole.state_dict()["average"])
    assert_bit_equal(resumed.model_state_dict(), whole.model_state_dict())


def test_a_copy_of_model_and_average_goes_on_alike():
    model, average = begun()
    twin_model, twin = copy.deepcopy((model, average))
    run(average, model, [7, 8])
    assert twin.updates == 4
    run(twin, twin_model, [7, 8])
    assert_bit_equal(twin.model_state_dict(), average.model_state_dict())


OTHER_RULES = {
    "decay": ({"decay": RatioWarmUp(0.5)}, r"RatioWarmUp\(decay=0.5\).*this one has.*'decay': '0.5'"),
    "function": ({"decay": equal_weights}, "equal_weights.*this one has"),
    "start": ({"decay": 0.5, "start": 3}, "'start': 3.*this one has.*'start': 0"),
    "every": ({"decay": 0.5, "every": 2}, "'every': 2.*this one has"),
    "buffers": ({"decay": 0.5, "buffers": "average"}, "'buffers': 'average'.*this one has"),
}


@pytest.mark.parametrize(("settings", "message"), OTHER_RULES.values(), ids=OTHER_RULES.keys())
def test_a_state_of_another_rule_is_refused(settings, message):
    _, average = begun()
    with pytest.raises(ValueError, match=message):
        average.load_state_dict(WeightAverage(network(), **settings).state_dict())


def without(state, name):
    return {**state, "average": {key: value for key, value in state["average"].items() if key != name}}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: without(state, "frozen"), "another model: missing 'frozen'"),
        (lambda state: {**state, "average": {**state["average"], "x": torch.ones(1)}}, "another model: unexpected 'x'"),
        (
            lambda state: {**state, "average": {**state["average"], "frozen": torch.ones(5)}},
            r"another model: 'frozen' has shape \(5,\) instead of \(4,\)",
        ),
        (lambda state: network().state_dict(), r"not what WeightAverage.state_dict\(\) gave"),
        (lambda state: {**state, "version": 2}, r"not what WeightAverage.state_dict\(\) gave"),
    ],
    ids=["missing", "unexpected", "shape", "a model", "version"],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_loaded(spoil, message):
    _, average = begun()
    before = copy.deepcopy(average.state_dict())
    other = WeightAverage(network(torch.float32), decay=0.5)
    with pytest.raises(ValueError, match=message):
        average.load_state_dict(spoil(other.state_dict()))
    assert average.updates == before["updates"]
    assert_bit_equal(average.state_dict()["average"], before["average"])


# Mistakes


def test_inside_the_block_nothing_else_is_done_with_the_average():
    model, average = begun()
    state, online = average.state_dict(), snapshot(model)
    with average.applied():
        for use, what in [
            (average.update, "updated"),
            (average.state_dict, "saved"),
            (lambda: average.load_state_dict(state), "loaded"),
            (average.model_state_dict, "exported"),
            (lambda: average.applied().__enter__(), "applied again"),
        ]:
            with pytest.raises(RuntimeError, match=f"cannot be {what}: leave the with block first"):
                use()
    assert average.updates == 4
    assert_bit_equal(snapshot(model), online)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"decay": 1.5}, ValueError, r"lies in \[0, 1\], got 1.5"),
        ({"decay": -0.1}, ValueError, r"lies in \[0, 1\], got -0.1"),
        ({"decay": float("nan")}, ValueError, r"lies in \[0, 1\], got nan"),
        ({"decay": "swa"}, TypeError, "a number such as 0.999 or a function of t, got 'swa'"),
        ({"decay": 0.9, "start": -1}, ValueError, "at least 0 and 1, got -1 and 1"),
        ({"decay": 0.9, "start": 2.5}, ValueError, "whole numbers of updates, .* got 2.5 and 1"),
        ({"decay": 0.9, "every": 0}, ValueError, "at least 0 and 1, got 0 and 0"),
        ({"decay": 0.9, "buffers": "skip"}, ValueError, r"one of \('copy', 'average'\), got 'skip'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        WeightAverage(network(), **settings)


@pytest.mark.parametrize("wrong", [1.5, -0.5, float("nan")])
def test_a_rule_that_gives_no_share_is_refused_and_the_update_does_not_count(wrong):
    model = network()
    average = WeightAverage(model, decay=lambda t: wrong)
    before = average.model_state_dict()
    step(model, 0)
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        average.update()
    assert average.updates == 0
    assert_bit_equal(average.model_state_dict(), before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RatioWarmUp(2.0), r"lies in \[0, 1\], got 2.0"),
        (lambda: PowerWarmUp(-1.0), r"lies in \[0, 1\], got -1.0"),
        (lambda: PowerWarmUp(0.9, gamma=0.0), "must be positive, got 0.0 and"),
        (lambda: PowerWarmUp(0.9, power=-1.0), "must be positive, got 1.0 and -1.0"),
    ],
)
def test_rules_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_only_a_module_can_be_averaged():
    with pytest.raises(
        TypeError, match=r"must be the torch.nn.Module whose weights to average, got <class .*OrderedDict"
    ):
        WeightAverage(network().state_dict(), decay=0.5)


@pytest.mark.parametrize("lazy", [lambda: nn.LazyLinear(3), lambda: nn.LazyBatchNorm1d(affine=False)])
def test_a_model_with_lazy_weights_is_refused(lazy):
    with pytest.raises(ValueError, match="has no shape yet: run one batch through the model"):
        WeightAverage(nn.Sequential(lazy()), decay=0.5)


def test_a_wrapper_that_renames_its_weights_is_refused():
    model = nn.Linear(2, 2)
    model._register_state_dict_hook(lambda module, state, prefix, metadata: {"w": state["weight"]})
    with pytest.raises(ValueError, match="no entry for its parameter 'weight'"):
        WeightAverage(model, decay=0.5)
