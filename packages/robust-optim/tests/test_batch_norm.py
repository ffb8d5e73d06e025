import copy

import pytest
import torch
from robust_optim import frozen_batch_norm
from torch import nn

NORMS = {
    "1d": (lambda: nn.BatchNorm1d(3), (8, 3)),
    "2d": (lambda: nn.BatchNorm2d(3), (4, 3, 5, 5)),
    "3d": (lambda: nn.BatchNorm3d(3), (2, 3, 4, 4, 4)),
    "momentum None": (lambda: nn.BatchNorm2d(3, momentum=None), (4, 3, 5, 5)),
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
    if twin.track_running_stats:  # the twin shows that the pass would have moved them
        assert not torch.equal(twin.running_mean, before["running_mean"])


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
    assert module.track_running_stats == plain.track_running_stats


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


def test_sync_batch_norm_is_frozen_too():
    module = nn.SyncBatchNorm(2)  # its forward pass needs a process group, so the switch is what can be seen here
    with frozen_batch_norm(module):
        assert not module.track_running_stats
    assert module.track_running_stats


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
    with pytest.raises(TypeError, match=r"torch.nn.Module"), frozen_batch_norm([nn.BatchNorm1d(2)]):
        pass
