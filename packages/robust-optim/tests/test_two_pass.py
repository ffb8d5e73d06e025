import pytest
import torch
from robust_optim import AWP, ESAM, GSAM, SAM, LookSAM, frozen_batch_norm
from torch import nn
from torch.nn.utils import get_total_norm


def without_gradients(parameters):
    """A clip that leaves nothing for the base optimizer to step with."""
    for parameter in parameters:
        parameter.grad.zero_()


# Laws of every method


def test_radius_zero_is_the_base_optimizer_bit_for_bit_in_one_pass(training, same, method, base):
    ours, theirs = (training(dtype=torch.float32, batch_norm=True, dropout=0.3) for _ in range(2))
    optimizer = method(base(ours.groups(weight_decay=0.01)), model=ours.model, **{method.func.radius: 0.0})
    plain = base(theirs.groups(weight_decay=0.01))
    plain.scaler = None
    passes = []
    ours.model.register_forward_pre_hook(lambda *_: passes.append(optimizer.phase))
    for seed, batch in enumerate(ours.batches(10)):
        losses = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            losses.append(ours.step(optimizer, *batch))
            torch.manual_seed(seed)
            losses.append(plain.step(theirs.closure(plain, *batch)).detach())
        assert torch.equal(*losses)
        assert same(ours.model.state_dict().values(), theirs.model.state_dict().values())
    assert passes == ["descent"] * 10
    assert optimizer.updates == 10


@pytest.mark.parametrize("scale", [2.0**10, 2.0**16])
def test_a_loss_scale_that_is_taken_out_at_the_end_changes_nothing(training, method, base, scale):
    plain, scaled = training(), training()

    def unscale(parameters):
        for parameter in parameters:
            parameter.grad.div_(scale)

    a = method(base(plain.groups(weight_decay=0.01)), model=plain.model)
    b = method(base(scaled.groups(weight_decay=0.01)), model=scaled.model, clip=unscale)
    for batch in plain.batches(8):
        plain.step(a, *batch)
        scaled.step(b, *batch, scale=scale)
        for x, y in zip(plain.weights(), scaled.weights(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_come_back_bit_exactly_in_the_same_storage(training, same, method, dtype):
    ours = training(dtype=dtype)
    before, storage = ours.weights(), [p.data_ptr() for p in ours.parameters()]
    optimizer = method(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model, clip=without_gradients)
    seen = []
    ours.model.register_forward_pre_hook(lambda *_: seen.append(same(ours.weights(), before)))
    ours.run(optimizer, ours.batches(5))
    assert not all(seen)  # they were moved
    assert [p.data_ptr() for p in ours.parameters()] == storage
    if getattr(optimizer, "order", None) == "step_first":  # subtracts, as published
        for x, y in zip(ours.weights(), before, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=2 * torch.finfo(dtype).eps)
    else:
        assert same(ours.weights(), before)


def test_a_failure_in_the_second_pass_leaves_the_weights_and_the_next_update_works(training, same, method):
    for failing in (2, 3) if method.func is ESAM else (2,):
        ours = training(dtype=torch.float32)
        optimizer = method(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model)
        before, moved = ours.weights(), []

        def fail(*_, ours=ours, before=before, moved=moved, failing=failing):
            moved.append(not same(ours.weights(), before))
            if len(moved) == failing:
                raise MemoryError("in pass 2")

        ours.model.register_forward_pre_hook(fail)
        (batch,) = ours.batches(1)
        with pytest.raises(MemoryError, match="in pass 2"):
            ours.step(optimizer, *batch)
        assert moved == [False, True, True][:failing]
        assert same(ours.weights(), before)
        assert optimizer.updates == 0
        assert optimizer.phase == "ascent"
        ours.step(optimizer, *batch)
        assert len(moved) > failing + 1
        assert optimizer.updates == 1


def test_the_buffers_of_batch_norms_are_those_of_one_plain_pass_at_the_weights(training, method):
    ours, theirs = (training(batch_norm=True) for _ in range(2))
    optimizer = method(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model)
    for step, (x, y) in enumerate(ours.batches(6), start=1):
        theirs.model.load_state_dict(ours.model.state_dict())
        theirs.model(x)
        ours.step(optimizer, x, y)
        for (name, mine), plain in zip(ours.model.named_buffers(), theirs.model.buffers(), strict=True):
            assert torch.equal(mine, plain), name
        assert ours.model[1].num_batches_tracked == step


def test_parameters_without_gradient_are_skipped(training, same, method):
    ours, theirs = training(), training()
    ours.model.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    ours.model.unused_weight = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    ours.model.forward = lambda x: nn.Sequential.forward(ours.model, x)
    settings = {"beta": 1.0} if method.func is ESAM else {}  # draws go by the number of parameters
    names = [name for name, _ in ours.model.named_parameters() if "unused" not in name]
    a = method(torch.optim.SGD(ours.parameters(), lr=0.1, weight_decay=0.1), model=ours.model, **settings)
    b = method(torch.optim.SGD(theirs.parameters(), lr=0.1, weight_decay=0.1), model=theirs.model, **settings)
    for batch in ours.batches(4):
        ours.step(a, *batch)
        theirs.step(b, *batch)
    assert same([ours.model.get_parameter(name) for name in names], theirs.weights())
    assert same([ours.model.unused, ours.model.unused_weight], [torch.ones(2).double(), torch.ones(2, 2).double()])


def test_the_gradient_and_not_the_decay_of_the_weights_moves_them(training, same, method):
    """The first ascent is the same with and without weight decay."""
    seen = []
    for decay in (0.0, 0.5):
        ours = training()
        optimizer = method(torch.optim.SGD(ours.parameters(), lr=0.1, weight_decay=decay), model=ours.model)
        passes = []
        ours.model.register_forward_pre_hook(lambda *_, ours=ours, passes=passes: passes.append(ours.weights()))
        ours.step(optimizer, *ours.batches(1)[0])
        seen.append(passes[1])
    assert same(*seen)


def test_the_two_phases_in_a_loop_of_ones_own_are_the_step(training, same, by_closure):
    ours, theirs = training(), training()
    a, b = (by_closure(torch.optim.SGD(t.parameters(), lr=0.1, momentum=0.9), model=t.model) for t in (ours, theirs))
    for batch in ours.batches(5):
        ours.step(a, *batch)
        backward = theirs.closure(b, *batch)
        backward()
        if b.perturbs:
            b.ascend()
            backward()
        b.descend()
        assert same(ours.weights(), theirs.weights())
    assert b.updates == 5


def test_accumulation_over_micro_batches_in_the_closure_is_the_large_batch(training, by_closure):
    whole, parts = training(), training()
    a, b = (by_closure(torch.optim.SGD(t.parameters(), lr=0.1, momentum=0.9), model=t.model) for t in (whole, parts))
    for x, y in whole.batches(6):

        def closure(x=x, y=y):
            b.zero_grad()
            total = 0.0
            for part, labels in zip(x.split(2), y.split(2), strict=True):
                loss = nn.functional.cross_entropy(parts.model(part), labels) / 3
                loss.backward()
                total += loss.detach()
            return total

        torch.testing.assert_close(whole.step(a, x, y), b.step(closure), rtol=1e-12, atol=0)
        for one, other in zip(whole.weights(), parts.weights(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_clip_is_called_once_an_update_with_the_parameters_and_the_gradient_of_the_step(training, same, method):
    ours = training()
    ours.model[-1].bias.requires_grad_(False)
    gradients = []

    def clip(parameters):
        gradients.append((parameters, [p.grad.clone() for p in parameters]))
        without_gradients(parameters)

    before = ours.weights()
    optimizer = method(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model, clip=clip)
    ours.run(optimizer, ours.batches(5))
    assert len(gradients) == 5
    assert all(parameters == ours.parameters()[:3] for parameters, _ in gradients)
    assert all(get_total_norm(g) > 0 for _, g in gradients)
    if getattr(optimizer, "order", None) != "step_first":
        assert same(ours.weights(), before)  # nothing is left of the gradients for the base


def test_clipping_to_a_norm_bounds_the_step_and_not_the_ascent(training):
    ours = training()
    optimizer = SAM(
        torch.optim.SGD(ours.parameters(), lr=1.0),
        rho=0.3,
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.01),
    )
    before, moved = ours.weights(), []

    def watch(*_):
        moved.append(get_total_norm([x - y for x, y in zip(ours.weights(), before, strict=True)]))

    ours.model.register_forward_pre_hook(watch)
    ours.step(optimizer, *ours.batches(1)[0])
    watch()
    torch.testing.assert_close(torch.stack(moved), torch.tensor([0.0, 0.3, 0.01]).double(), rtol=1e-3, atol=0)


# Random numbers


def masks_of(ours, optimizer, batch):
    """What dropout zeroed, in every forward pass of one update, and a number from the stream afterwards."""
    seen = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        handle = ours.model[1].register_forward_hook(lambda module, inputs, output: seen.append(output == 0))
        ours.step(optimizer, *batch)
        handle.remove()
        return seen, torch.rand(1)


def test_dropout_is_the_same_in_both_passes_unless_told_otherwise(training, method):
    for replay in (True, False):
        ours = training(dropout=0.5)
        optimizer = method(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model, replay_random=replay)
        masks, _ = masks_of(ours, optimizer, ours.batches(1)[0])
        assert torch.equal(masks[0], masks[1]) == replay


def test_the_random_stream_goes_on_as_after_one_pass(training, method):
    ours = training(dropout=0.5)
    settings = {"gamma": 1.0} if method.func is ESAM else {}
    optimizer = method(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model, **settings)
    for batch in ours.batches(4):
        _, after = masks_of(ours, optimizer, batch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            ours.model(batch[0])
            assert torch.equal(torch.rand(1), after)


# Which parameters are moved


@pytest.mark.parametrize("wrap", [SAM, GSAM], ids=lambda wrap: wrap.__name__)
def test_only_chosen_parameters_are_moved_by_the_norm_of_their_gradients(follow, base, wrap):
    """As in SAM-ON, where the norms alone are moved and everything is trained with what comes out."""

    def formula(at, w, radii, step):
        g = at(w)
        norm = get_total_norm([g[1], g[3]])
        h = at([x if i in (0, 2) else x + radii[i] * y / norm for i, (x, y) in enumerate(zip(w, g, strict=True))])
        if wrap is SAM:
            return h
        along = sum((x * y).sum() for x, y in zip(g, h, strict=True)) / get_total_norm(h) ** 2  # over all
        return [y - 0.4 * (x - along * y) for x, y in zip(g, h, strict=True)]

    follow(lambda base, model: wrap(base, model=model, perturb=lambda name, p: name.endswith("bias")), formula, base)


def test_a_choice_without_gradients_is_told_so_and_nothing_moves(training, same):
    ours = training()
    before = ours.weights()
    optimizer = SAM(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model, perturb=lambda name, p: False)
    with pytest.raises(RuntimeError, match="none of the parameters that are to be perturbed has a gradient"):
        ours.step(optimizer, *ours.batches(1)[0])
    assert same(ours.weights(), before)


def test_tied_weights_are_moved_and_counted_once():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False)).double()
    model[2].weight = model[0].weight
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3, adaptive=True, eta=0.1, model=model)
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def gradient_at(w):
        w = w.clone().requires_grad_()
        return torch.autograd.grad((torch.tanh(inputs @ w.T) @ w.T).square().mean(), w)[0]

    def closure():
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        return loss

    w = model[0].weight.detach().clone()
    for _ in range(5):
        T, g = w.abs() + 0.1, gradient_at(w)
        w = w - 0.1 * gradient_at(w + 0.3 * T**2 * g / (T * g).norm())
        optimizer.step(closure)
        torch.testing.assert_close(model[0].weight.detach(), w, rtol=1e-9, atol=1e-11)
    assert model[2].weight is model[0].weight


def test_sparse_gradients_are_refused_and_nothing_moves(method):
    model = nn.Embedding(4, 2, sparse=True)
    before = model.weight.detach().clone()
    optimizer = method(torch.optim.SGD(model.parameters(), lr=0.1), model=model)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.tensor([1, 2])).sum()
        loss.backward()
        return loss

    def losses(subset=None):
        return model(torch.tensor([1, 2])).sum(1)

    with pytest.raises(RuntimeError, match=r"dense gradients.*\(4, 2\).*sparse=False"):
        optimizer.step(losses if method.func is ESAM else closure)
    assert torch.equal(model.weight.detach(), before)


def test_weights_that_change_their_dtype_between_steps_are_restored_exactly(training, same):
    ours = training(dtype=torch.float32)
    optimizer = SAM(torch.optim.SGD(ours.parameters(), lr=0.0), rho=0.3)
    ours.run(optimizer, ours.batches(1))
    ours.model.double()
    ours.dtype = torch.float64
    with torch.no_grad():
        ours.model[0].weight.add_(1e-12)
    before = ours.weights()
    ours.run(optimizer, ours.batches(1))
    assert same(ours.weights(), before)


def test_without_a_model_batch_norms_are_left_to_the_closure(training, same):
    by_model, by_hand, naive = (training(batch_norm=True) for _ in range(3))
    a = SAM(torch.optim.SGD(by_model.parameters(), lr=0.1), rho=0.1, model=by_model.model)
    b, c = (SAM(torch.optim.SGD(t.parameters(), lr=0.1), rho=0.1) for t in (by_hand, naive))
    for batch in by_model.batches(4):
        by_model.step(a, *batch)
        naive.step(c, *batch)
        by_hand.closure(b, *batch)()
        b.ascend()
        with frozen_batch_norm(by_hand.model):
            by_hand.closure(b, *batch)()
        b.descend()
    assert same(by_model.model.state_dict().values(), by_hand.model.state_dict().values())
    assert naive.model[1].num_batches_tracked == 8


def test_a_step_inside_no_grad_is_the_step_outside_of_it(training, same, method):
    inside, outside = training(), training()
    a, b = (method(torch.optim.SGD(t.parameters(), lr=0.1), model=t.model) for t in (inside, outside))
    for batch in inside.batches(3):
        with torch.no_grad():
            inside.step(a, *batch)
            assert not torch.is_grad_enabled()
        outside.step(b, *batch)
    assert same(inside.weights(), outside.weights())


# Living with torch.compile and with fused steps


def test_a_compiled_model_has_two_graphs_and_is_not_compiled_again(training, same):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    eager, compiled = (training(batch_norm=True, dtype=torch.float32) for _ in range(2))
    a, b = (SAM(torch.optim.SGD(t.parameters(), lr=0.1), rho=0.3, model=t.model) for t in (eager, compiled))
    torch._dynamo.reset()
    compiled.model = torch.compile(compiled.model, backend=count)
    for batch in eager.batches(6):
        eager.step(a, *batch)
        compiled.step(b, *batch)
    torch._dynamo.reset()
    assert same(eager.weights(), compiled.weights())
    assert len(graphs) == 2  # one that moves the statistics, one that does not


@pytest.mark.parametrize("fused", [torch.optim.SGD, torch.optim.AdamW], ids=lambda base: base.__name__)
def test_a_fused_base_optimizer_makes_the_same_steps(training, method, fused):
    ours, theirs = (training(dtype=torch.float32) for _ in range(2))
    a, b = (
        method(fused(t.groups(weight_decay=0.01), lr=0.01, fused=f), model=t.model)
        for t, f in ((ours, True), (theirs, False))
    )
    for batch in ours.batches(5):
        ours.step(a, *batch)
        theirs.step(b, *batch)
    for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


# Mistakes


@pytest.fixture
def valley(bowl):
    return bowl()


@pytest.fixture
def optimizer(valley):
    return SAM(torch.optim.SGD([valley.weights], lr=0.1), rho=0.5)


@pytest.mark.parametrize("nothing", [None, [], [None], 3.0, torch.tensor(3.0)], ids=str)
def test_a_step_without_closure_is_told_both_ways(optimizer, nothing):
    with pytest.raises(TypeError, match=r"step\(closure\).*ascend\(\)"):
        optimizer.step(nothing)


def test_a_closure_without_loss_is_told_so_and_nothing_moves(valley, optimizer):
    def closure():
        valley.closure(optimizer)()

    with pytest.raises(TypeError, match="must return the loss, a tensor or a number, got NoneType"):
        optimizer.step(closure)
    assert not valley.moved()


def test_a_closure_without_backward_is_told_so(valley, optimizer):
    with pytest.raises(RuntimeError, match=r"no parameter has a gradient: run forward and backward\(\) before ascend"):
        optimizer.step(lambda: 1.0)
    assert not valley.moved()


def test_a_second_pass_without_backward_is_told_so_and_nothing_moves(valley, optimizer):
    def closure():
        if optimizer.phase == "descent":
            return 1.0
        return valley.closure(optimizer)()

    with pytest.raises(RuntimeError, match=r"no parameter has a gradient.*in the second call of the closure"):
        optimizer.step(closure)
    assert not valley.moved()


def test_a_closure_may_return_a_number(valley, optimizer):
    loss = optimizer.step(lambda: valley.closure(optimizer)().item())
    assert loss == pytest.approx(float(valley.start @ valley.A @ valley.start / 2))


def test_the_loss_comes_back_detached(valley, optimizer):
    assert not optimizer.step(valley.closure(optimizer)).requires_grad


def test_phases_out_of_order_are_refused(valley, optimizer):
    with pytest.raises(RuntimeError, match="without ascend"):
        optimizer.descend()
    with pytest.raises(RuntimeError, match="without ascend"):
        optimizer.restore()
    valley.closure(optimizer)()
    optimizer.ascend()
    for call, message in [
        (optimizer.ascend, "called twice"),
        (optimizer.descend, r"between ascend\(\) and descend\(\)"),  # no second backward pass
        (lambda: optimizer.step(valley.closure(optimizer)), "cannot be stepped"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            call()
    optimizer.restore()
    assert not valley.moved()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": lambda images: images}, r"model must be the torch.nn.Module"),
        ({"scaler": 2.0**16}, r"scaler must be a torch.amp.GradScaler or None"),
        ({"clip": 1.0}, r"clip must be called with the parameters.*clip_grad_norm_\(parameters, 1.0\), got 1.0"),
        ({"perturb": "bias", "model": nn.Linear(1, 1)}, "perturb must be called with name and parameter"),
        ({"perturb": lambda name, parameter: True}, r"SAM\(..., perturb=..., model=model\)"),
    ],
    ids=["model", "scaler", "clip", "perturb", "perturb without model"],
)
def test_parts_of_another_kind_are_refused(valley, given, message):
    with pytest.raises(TypeError, match=message):
        SAM(torch.optim.SGD([valley.weights], lr=0.1), **given)


def test_an_unknown_sync_is_refused(valley):
    with pytest.raises(ValueError, match='sync must be "per_rank", "global" or None'):
        SAM(torch.optim.SGD([valley.weights], lr=0.1), sync="all")


def test_the_default_of_sync_is_the_methods_usual_one(training):
    ours = training()

    def usual(wrap, **given):
        return wrap(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model, **given).sync

    assert {wrap.__name__: usual(wrap) for wrap in (SAM, GSAM, LookSAM, ESAM, AWP)} == {
        "SAM": "per_rank", "GSAM": "global", "LookSAM": "global", "ESAM": "per_rank", "AWP": "per_rank",
    }  # fmt: skip
    assert usual(SAM, friendly=1.0) == "global"
    assert usual(GSAM, sync="per_rank") == "per_rank"
