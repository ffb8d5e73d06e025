import copy

import pytest
import torch
from robust_optim.batch_norm import frozen_batch_norm, reestimate_batch_norm
from torch import nn
from torch.optim.swa_utils import update_bn


class DualNorm(nn.Module):
    """Two batch norms of which the first half of a batch sees one, the second half the other."""

    def __init__(self):
        super().__init__()
        self.main, self.auxiliary = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.use_auxiliary = True

    def forward(self, images):
        if not self.use_auxiliary:
            return self.main(images)
        first, second = images.chunk(2)
        return torch.cat([self.main(first), self.auxiliary(second)])


class SwitchableNorm(nn.BatchNorm2d):
    """A batch norm that holds an auxiliary one, and does not go through its own class's forward pass alone."""

    def __init__(self):
        super().__init__(3)
        self.auxiliary = nn.BatchNorm2d(3)

    def forward(self, images):
        first, second = images.chunk(2)
        return torch.cat([super().forward(first), self.auxiliary(second)])


def without_means():
    norm = nn.BatchNorm2d(3)
    norm.running_mean = norm.running_var = None
    return norm


NORMS = {
    "1d": (lambda: nn.BatchNorm1d(3), (8, 3)),
    "2d": (lambda: nn.BatchNorm2d(3), (4, 3, 5, 5)),
    "3d": (lambda: nn.BatchNorm3d(3), (2, 3, 4, 4, 4)),
    "momentum None": (lambda: nn.BatchNorm2d(3, momentum=None), (4, 3, 5, 5)),
    "synchronised": (lambda: nn.SyncBatchNorm(3), (4, 3, 5, 5)),  # in a single process
    "dual": (DualNorm, (4, 3, 5, 5)),
    "switchable": (SwitchableNorm, (4, 3, 5, 5)),
    "tracking without means": (without_means, (4, 3, 5, 5)),
    "without running statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 5, 5)),
}


def buffers(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def assert_bit_equal(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def passes_of(module, shape, count, seed=0):
    random = torch.Generator().manual_seed(seed)
    for _ in range(count):
        module(torch.randn(shape, generator=random))


@pytest.mark.parametrize(("make", "shape"), NORMS.values(), ids=NORMS.keys())
def test_output_is_that_of_training_and_the_statistics_stay(make, shape):
    module = make()
    passes_of(module, shape, 3)
    twin = copy.deepcopy(module)
    before = buffers(module)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3 + 2
    with frozen_batch_norm(module):
        out = module(images)
    assert torch.equal(out, twin(images))
    assert_bit_equal(buffers(module), before)
    for name, buffer in twin.named_buffers():  # the twin shows that the pass would have moved them
        assert not torch.equal(buffer, before[name])


@pytest.mark.parametrize(("make", "shape"), NORMS.values(), ids=NORMS.keys())
def test_k_steps_with_frozen_second_passes_leave_the_statistics_of_k_plain_passes(make, shape):
    module, plain = make(), make()
    random = torch.Generator().manual_seed(0)
    for _ in range(4):
        images = torch.randn(shape, generator=random)
        plain(images)
        module(images)
        with frozen_batch_norm(module), frozen_batch_norm(module):  # nested, as when a closure freezes as well
            module(images * 2)
    assert_bit_equal(buffers(module), buffers(plain))
    for norm, twin in zip(module.modules(), plain.modules(), strict=True):
        assert vars(norm).get("track_running_stats") == vars(twin).get("track_running_stats")


def test_nesting_ends_only_with_the_outer_block():
    module = nn.BatchNorm1d(2)
    with frozen_batch_norm(module):
        with frozen_batch_norm(module):
            module(torch.randn(4, 2))
        module(torch.randn(4, 2))
        assert module.num_batches_tracked == 0
    module(torch.randn(4, 2))
    assert module.num_batches_tracked == 1


def test_an_exception_undoes_the_freeze():
    module = nn.BatchNorm1d(2)
    with pytest.raises(KeyError, match="in pass 2"), frozen_batch_norm(module):
        raise KeyError("in pass 2")
    assert module.track_running_stats


def test_eval_mode_is_untouched():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    passes_of(module, (6, 2), 3)
    module[1].eval()
    images = torch.randn(6, 2)
    before = buffers(module[1])
    expected = copy.deepcopy(module)(images)
    with frozen_batch_norm(module):
        assert module[1].track_running_stats
        assert torch.equal(module(images), expected)
    assert_bit_equal(buffers(module[1]), before)


@pytest.mark.parametrize(
    "use", [lambda model: frozen_batch_norm(model).__enter__(), lambda model: reestimate_batch_norm(model, [])]
)
def test_a_lazy_batch_norm_is_refused_until_it_has_seen_a_batch(use):
    module = nn.Sequential(nn.LazyBatchNorm1d())
    with pytest.raises(ValueError, match="a lazy batch norm has not seen a batch yet: run one through the model"):
        use(module)
    module(torch.randn(4, 2))
    with frozen_batch_norm(module):
        module(torch.randn(4, 2))
    assert module[0].num_batches_tracked == 1


def test_a_layer_used_twice_is_restored_once():
    norm = nn.BatchNorm1d(2)
    with frozen_batch_norm(nn.Sequential(norm, norm)):
        norm(torch.randn(4, 2))
    assert norm.track_running_stats
    assert norm.num_batches_tracked == 0


def test_the_compiled_model_has_two_graphs_and_no_more():
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    compiled = torch.compile(module, backend=count)
    torch._dynamo.reset()
    for _ in range(3):
        images = torch.randn(4, 3)
        compiled(images)
        with frozen_batch_norm(module):
            compiled(images)
    assert len(graphs) == 2
    assert module[1].num_batches_tracked == 3
    torch._dynamo.reset()


def test_another_thing_than_a_module_is_refused():
    with pytest.raises(TypeError, match=r"frozen_batch_norm takes the torch.nn.Module"):
        frozen_batch_norm([nn.BatchNorm1d(2)]).__enter__()
    with pytest.raises(TypeError, match=r"reestimate_batch_norm takes the torch.nn.Module"):
        reestimate_batch_norm([nn.BatchNorm1d(2)], [torch.ones(4, 2)])


# Statistics measured anew


def images_of(count, size=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 3, 5, 5, generator=random, dtype=torch.float64) * 2 + 1 for _ in range(count)]


def network(dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Dropout(dropout), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU()
        )
    return model.double()


def state_of(model):
    return [(module.training, getattr(module, "momentum", 0)) for module in model.modules()]


def test_the_first_batch_norm_gets_the_means_of_the_statistics_of_the_batches():
    model, images = network(), images_of(5)
    model(images[0] * 100)  # what it knew before does not count
    reestimate_batch_norm(model, images)
    means = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in images])
    variances = torch.stack([batch.transpose(0, 1).flatten(1).var(dim=1) for batch in images])
    torch.testing.assert_close(model[0].running_mean, means.mean(dim=0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model[0].running_var, variances.mean(dim=0), rtol=1e-12, atol=1e-12)
    assert model[0].num_batches_tracked == 5
    pooled = torch.cat(images).mean(dim=(0, 2, 3))  # the batches are of one size
    torch.testing.assert_close(model[0].running_mean, pooled, rtol=1e-12, atol=1e-12)


def test_torch_measures_the_same_without_dropout():
    model, images = network(), images_of(4)
    twin = copy.deepcopy(model)
    reestimate_batch_norm(model, images)
    update_bn(images, twin)
    assert_bit_equal(buffers(model), buffers(twin))
    assert not torch.equal(model[3].running_mean, torch.zeros(4))


def test_dropout_sleeps_also_inside_of_a_batch_norm():
    class NormDrop(nn.BatchNorm2d):
        """As timm's `BatchNormAct2d`."""

        def __init__(self):
            super().__init__(3)
            self.drop = nn.Dropout(0.5)

        def forward(self, images):
            return self.drop(super().forward(images))

    model = nn.Sequential(NormDrop(), network(dropout=0.5)).double().train()
    still = copy.deepcopy(model)
    for module in still.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images, before = images_of(3), torch.get_rng_state()
    reestimate_batch_norm(model, images)
    reestimate_batch_norm(still, images)
    assert torch.equal(torch.get_rng_state(), before)
    assert_bit_equal(buffers(model), buffers(still))


@pytest.mark.parametrize("training", [True, False])
def test_modes_momenta_and_weights_are_as_before(training):
    model = network(dropout=0.5).train(training)
    model[1].train(not training)
    before = state_of(model)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    reestimate_batch_norm(model, images_of(2))
    assert state_of(model) == before
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def broken_after_two():
    yield from images_of(2)
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        (broken_after_two(), OSError, "the disk is gone"),
        ([*images_of(1), torch.ones(1, 7, 5, 5)], RuntimeError, "7"),
        ([], ValueError, "there are no batches to measure the statistics on: the old ones were kept"),
        ([{"image": torch.ones(1)}], TypeError, "a batch must be a tensor of inputs, .* got dict"),
        ([([1, 2], 3)], TypeError, "a batch must be a tensor of inputs, .* got tuple"),
        ([()], TypeError, "a batch must be a tensor of inputs, .* got tuple"),
    ],
    ids=["loader", "model", "empty", "dictionary", "list in tuple", "empty tuple"],
)
def test_after_an_exception_all_is_as_before(batches, error, message):
    model = network(dropout=0.5).train()
    model(images_of(1)[0])
    before, statistics = state_of(model), buffers(model)
    with pytest.raises(error, match=message):
        reestimate_batch_norm(model, batches)
    assert state_of(model) == before
    assert_bit_equal(buffers(model), statistics)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x, torch.zeros(6)), lambda x: [x, torch.zeros(6), "name"]])
def test_batches_are_inputs_or_begin_with_them(wrap):
    model, plain = network(), network()
    reestimate_batch_norm(model, (wrap(batch) for batch in images_of(3)))
    reestimate_batch_norm(plain, images_of(3))
    assert_bit_equal(buffers(model), buffers(plain))


def test_inputs_go_to_the_device_of_the_model():
    seen = []
    model = nn.BatchNorm1d(2).to("meta")
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].device.type))
    with pytest.raises(RuntimeError):  # a cumulative mean asks for the count, and on meta there is none
        reestimate_batch_norm(model, [torch.ones(4, 2)])
    assert seen == ["meta"]


def test_no_graph_is_made():
    def refuse(module, inputs, output):
        assert not output.requires_grad

    model = network()
    model.register_forward_hook(refuse)
    reestimate_batch_norm(model, [image.requires_grad_() for image in images_of(2)])


def test_a_model_without_batch_norms_is_left_alone_and_nothing_is_read():
    def never():
        raise AssertionError("a batch was read")
        yield

    for model in (nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False), without_means()):
        reestimate_batch_norm(model, never())


def test_batch_norms_that_no_batch_goes_through_keep_their_statistics():
    model = DualNorm().double()
    model(images_of(1)[0])
    model.use_auxiliary = False
    before = buffers(model.auxiliary)
    images = images_of(3, seed=1)
    reestimate_batch_norm(model, images)
    assert_bit_equal(buffers(model.auxiliary), before)
    means = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in images]).mean(dim=0)
    torch.testing.assert_close(model.main.running_mean, means, rtol=1e-12, atol=1e-12)


def test_a_batch_norm_without_counter_is_refused():
    model = nn.Sequential(nn.BatchNorm2d(3))
    model[0].num_batches_tracked = None
    with pytest.raises(ValueError, match="no counter num_batches_tracked"):
        reestimate_batch_norm(model, images_of(1))


def test_evaluation_afterwards_normalises_what_was_measured():
    model = nn.BatchNorm2d(3).double().eval()
    (images,) = images_of(1, size=64)
    reestimate_batch_norm(model, [images])
    out = model(images)
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(out.var(dim=(0, 2, 3)), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)
