import math

import pytest
import torch
from robust_optim import ESAM, SAM
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm


class Watch:
    """A function of the losses that notes, in every call, the images, the weights and what was asked of it."""

    def __init__(self, training, inputs, labels):
        self.training, self.inputs, self.labels = training, inputs, labels
        self.subsets, self.weights, self.graphs = [], [], []

    def __call__(self, subset=None):
        x, y = (self.inputs, self.labels) if subset is None else (self.inputs[subset], self.labels[subset])
        values = cross_entropy(self.training.model(x), y, reduction="none")
        self.subsets.append(subset)
        self.weights.append(self.training.weights())
        self.graphs.append(values.requires_grad)
        return values


def losses_at(training, weights, inputs, labels):
    names = [name for name, _ in training.model.named_parameters()]
    logits = torch.func.functional_call(training.model, dict(zip(names, weights, strict=True)), (inputs,))
    return cross_entropy(logits, labels, reduction="none")


@pytest.mark.parametrize("sync", ["per_rank", "global"])
@pytest.mark.parametrize("part", ["tensors", "coordinates"])
def test_twenty_steps_follow_the_formula(training, base, part, sync):
    ours, theirs = training(), training()
    optimizer = ESAM(base(ours.groups(rho=0.2, weight_decay=0.01)), rho=0.05, beta=0.6, gamma=0.5, part=part, sync=sync)
    plain = base(theirs.groups(weight_decay=0.01))
    kept = total = 0
    for inputs, labels in ours.batches(20):
        watch = Watch(ours, inputs, labels)
        loss = optimizer.step(watch)
        w = theirs.weights()
        torch.testing.assert_close(loss, losses_at(theirs, w, inputs, labels).mean())
        g = theirs.gradients(w, inputs, labels)
        moved = [x - y for x, y in zip(watch.weights[1], watch.weights[0], strict=True)]
        masks = [(e != 0).double() for e in moved]
        if part == "tensors":
            assert all(mask.min() == mask.max() for mask in masks)
            norm = get_total_norm([m * x for m, x in zip(masks, g, strict=True)])
        else:
            norm = get_total_norm(g)
        kept, total = kept + sum(m.sum() for m in masks), total + sum(m.numel() for m in masks)
        e = [m * r / 0.6 * x / norm for m, r, x in zip(masks, [0.2, 0.2, 0.05, 0.05], g, strict=True)]
        at = [x + y for x, y in zip(w, e, strict=True)]
        for mine, expected in zip(watch.weights[1], at, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)
        rise = losses_at(theirs, at, inputs, labels) - losses_at(theirs, w, inputs, labels)
        worst = sorted(range(6), key=lambda i: -rise[i])[:3]
        assert sorted(watch.subsets[2].tolist()) == sorted(worst)
        found = theirs.gradients(at, inputs[worst], labels[worst])
        for parameter, gradient in zip(theirs.model.parameters(), found, strict=True):
            parameter.grad = gradient
        plain.step()
        for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)
    assert 0.4 < kept / total < 0.8


def test_beta_and_gamma_of_1_are_sam_bit_for_bit(training, same, base):
    for part in ("tensors", "coordinates"):
        ours, theirs = training(), training()
        a = ESAM(base(ours.groups(rho=0.3)), beta=1.0, gamma=1.0, part=part)
        b = SAM(base(theirs.groups(rho=0.3)))
        for batch in ours.batches(10):
            assert torch.equal(ours.step(a, *batch), theirs.step(b, *batch))
            assert same(ours.weights(), theirs.weights())


# The weights that are moved


def move_of(optimizer, parameters, gradients, update):
    before = [p.detach().clone() for p in parameters]
    optimizer.updates = update
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.clone()
    optimizer.ascend()
    moves = [p.detach() - b for p, b in zip(parameters, before, strict=True)]
    optimizer.restore()
    return moves


def many_tensors():
    random = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(4, generator=random, dtype=torch.float64)) for _ in range(12)]
    return parameters, [torch.randn(4, generator=random, dtype=torch.float64) for _ in parameters]


@pytest.mark.parametrize("beta", [0.25, 0.7])
def test_the_expectation_over_single_weights_is_the_whole_move_of_sam(beta):
    parameters, gradients = many_tensors()
    optimizer = ESAM(torch.optim.SGD(parameters, lr=0.1), rho=0.5, beta=beta, part="coordinates")
    draws = 600
    moves = torch.stack([torch.cat(move_of(optimizer, parameters, gradients, update)) for update in range(draws)])
    e = 0.5 * torch.cat(gradients) / get_total_norm(gradients)
    kept = moves != 0
    torch.testing.assert_close(moves, kept * e / beta, rtol=1e-6, atol=1e-12)
    deviation = math.sqrt(beta * (1 - beta) / draws)
    assert (kept.double().mean(0) - beta).abs().max() < 4.5 * deviation  # each weight
    assert abs(kept.double().mean() - beta) < 4 * deviation / math.sqrt(48)
    rows = kept.double() - kept.double().mean(0)
    together = (rows.T @ rows / draws / (beta * (1 - beta))).fill_diagonal_(0)
    assert together.abs().max() < 5 / math.sqrt(draws)  # any two weights are drawn independently
    after = (rows[1:] * rows[:-1]).mean(0) / (beta * (1 - beta))
    assert after.abs().max() < 5 / math.sqrt(draws)  # and so are two updates


@pytest.mark.parametrize("beta", [0.25, 0.7])
def test_whole_tensors_are_drawn_with_probability_beta_and_the_norm_is_that_of_the_drawn(beta):
    parameters, gradients = many_tensors()
    optimizer = ESAM(torch.optim.SGD(parameters, lr=0.1), rho=0.5, beta=beta)
    draws, counts = 250, torch.zeros(12)
    for update in range(draws):
        moves = move_of(optimizer, parameters, gradients, update)
        drawn = [bool(move.any()) for move in moves]
        norm = get_total_norm([g for g, d in zip(gradients, drawn, strict=True) if d])
        for move, g, d in zip(moves, gradients, drawn, strict=True):
            torch.testing.assert_close(move, d * 0.5 / beta * g / norm, rtol=1e-6, atol=1e-12)
        counts += torch.tensor(drawn)
    # at least one is drawn, which adds a twelfth of the chance that none would have been
    share = beta + (1 - beta) ** 12 / 12
    assert (counts / draws - share).abs().max() < 4.5 * math.sqrt(beta * (1 - beta) / draws)


def test_at_least_one_tensor_is_drawn_however_small_beta_is():
    parameters, gradients = many_tensors()
    optimizer = ESAM(torch.optim.SGD(parameters, lr=0.1), rho=1e-3, beta=1e-3)
    drawn = set()
    for update in range(60):
        moves = move_of(optimizer, parameters, gradients, update)
        assert sum(bool(move.any()) for move in moves) == 1
        drawn |= {i for i, move in enumerate(moves) if move.any()}
    assert len(drawn) == 12


def test_draws_depend_on_the_seed_and_the_update_alone():
    parameters, gradients = many_tensors()

    def drawn(seed, update):
        optimizer = ESAM(torch.optim.SGD(parameters, lr=0.1), rho=0.1, seed=seed)
        return [bool(move.any()) for move in move_of(optimizer, parameters, gradients, update)]

    state = torch.get_rng_state()
    assert drawn(0, 7) == drawn(0, 7)
    assert len({tuple(drawn(seed, update)) for seed in range(4) for update in range(4)}) == 16
    assert torch.equal(torch.get_rng_state(), state)  # torch's own stream is not used


def test_gradients_of_the_first_pass_are_computed_for_the_drawn_tensors_alone(training):
    ours = training()
    optimizer = ESAM(torch.optim.SGD(ours.parameters(), lr=0.1), rho=0.1)
    computed = [0] * 4
    for i, parameter in enumerate(ours.model.parameters()):
        parameter.register_hook(lambda gradient, i=i: computed.__setitem__(i, computed[i] + 1))
    moved = [0] * 4
    for batch in ours.batches(10):
        watch = Watch(ours, *batch)
        optimizer.step(watch)
        for i, (x, y) in enumerate(zip(*watch.weights[:2], strict=True)):
            moved[i] += not torch.equal(x, y)
    assert computed == [10 + count for count in moved]  # 10 second passes compute all of them
    assert all(0 < count < 10 for count in moved)
    assert all(parameter.requires_grad for parameter in ours.model.parameters())


def test_only_parameters_that_may_be_moved_are_drawn(training):
    ours = training()
    ours.model[0].bias.requires_grad_(False)
    optimizer = ESAM(
        torch.optim.SGD(ours.parameters(), lr=0.1),
        rho=0.1,
        beta=0.01,
        model=ours.model,
        perturb=lambda name, parameter: parameter.ndim == 1,
    )
    for batch in ours.batches(5):
        watch = Watch(ours, *batch)
        optimizer.step(watch)
        moved = [not torch.equal(x, y) for x, y in zip(*watch.weights[:2], strict=True)]
        assert moved == [False, False, False, True]


def test_a_choice_of_no_parameter_is_told_so(training):
    ours = training()
    optimizer = ESAM(torch.optim.SGD(ours.parameters(), lr=0.1), model=ours.model, perturb=lambda *_: False)
    with pytest.raises(RuntimeError, match="none of the parameters that are to be perturbed"):
        ours.step(optimizer, *ours.batches(1)[0])


# The images that make the step


@pytest.mark.parametrize(
    ("gamma", "count", "expected"),
    [(0.5, 6, 3), (0.5, 5, 3), (0.5, 1, 1), (0.01, 6, 1), (1e-12, 6, 1), (0.55, 100, 55), (0.07, 100, 7), (0.1, 30, 3)],
)
@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
def test_exactly_the_promised_share_of_images_is_selected(bowl, gamma, count, expected, tied):
    optimizer = ESAM(torch.optim.SGD([bowl().weights], lr=0.1), gamma=gamma)
    before = torch.rand(count, generator=torch.Generator().manual_seed(0))
    rise = torch.zeros(count) if tied else torch.randperm(count, generator=torch.Generator().manual_seed(1)).float()
    selected = optimizer.select(before, before + rise)
    assert selected.shape == (expected,)
    assert len(set(selected.tolist())) == expected
    if not tied:
        assert set(rise[selected].tolist()) == set(range(count - expected, count))


@pytest.mark.parametrize(("gamma", "images", "graphs"), [(0.5, [6, 6, 3], [1, 0, 1]), (1.0, [6, 6], [1, 1])])
def test_forward_passes_images_and_graphs_are_counted(training, gamma, images, graphs):
    ours = training()
    optimizer = ESAM(torch.optim.SGD(ours.parameters(), lr=0.1), gamma=gamma)
    seen = []
    ours.model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    watch = Watch(ours, *ours.batches(1)[0])
    optimizer.step(watch)
    assert seen == images
    assert watch.graphs == graphs
    assert watch.subsets[:2] == [None, None]
    assert all(subset.dtype == torch.int64 for subset in watch.subsets[2:])


def test_with_rho_zero_it_takes_one_pass_on_all_images(training, same):
    ours, theirs = training(), training()
    optimizer, plain = (torch.optim.SGD(t.parameters(), lr=0.1) for t in (ours, theirs))
    optimizer = ESAM(optimizer, rho=0.0)
    for batch in ours.batches(3):
        watch = Watch(ours, *batch)
        optimizer.step(watch)
        assert watch.subsets == [None]
        for parameter, gradient in zip(theirs.parameters(), theirs.gradients(theirs.weights(), *batch), strict=True):
            parameter.grad = gradient
        plain.step()
        for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)


def test_a_loop_of_ones_own_with_select_is_the_step(training, same):
    ours, theirs = training(), training()
    a, b = (ESAM(torch.optim.SGD(t.parameters(), lr=0.1), rho=0.3, sync="global") for t in (ours, theirs))
    for x, y in ours.batches(5):
        ours.step(a, x, y)
        b.zero_grad()
        before = cross_entropy(theirs.model(x), y, reduction="none")
        before.mean().backward()
        b.ascend()
        chosen = b.select(before, cross_entropy(theirs.model(x), y, reduction="none"))
        cross_entropy(theirs.model(x[chosen]), y[chosen]).backward()
        b.descend()
        for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)


# Mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beta": 0.0}, "beta must be above 0 and at most 1, got 0.0"),
        ({"beta": 1.5}, "beta must be above 0 and at most 1, got 1.5"),
        ({"gamma": 0.0}, "gamma must be above 0 and at most 1, got 0.0"),
        ({"gamma": float("nan")}, "gamma must be above 0"),
        ({"part": "layers"}, 'part must be "tensors" or "coordinates", got \'layers\''),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(bowl, given, message):
    with pytest.raises(ValueError, match=message):
        ESAM(torch.optim.SGD([bowl().weights], lr=0.1), **given)


def test_a_step_without_function_is_told_what_it_needs(bowl):
    with pytest.raises(TypeError, match=r"ESAM needs the loss of every image: optimizer.step\(losses\)"):
        ESAM(torch.optim.SGD([bowl().weights], lr=0.1)).step()


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (lambda values, subset: None, TypeError, r"a tensor \(N,\), got NoneType"),
        (
            lambda values, subset: values.mean(),
            ValueError,
            r"per image, \(N,\), got \(\): use reduction='none'",
        ),
        (lambda values, subset: values[:, None], ValueError, r"one loss per image, \(N,\), got \(6, 1\)"),
        (
            lambda values, subset: values if subset is None else torch.cat([values, values]),
            ValueError,
            r"one loss per image, \(3,\), got \(6,\).*only the images of the subset",
        ),
    ],
    ids=["None", "mean", "column", "all images"],
)
def test_what_is_not_one_loss_per_image_is_told_so_and_nothing_moves(training, same, break_it, error, message):
    ours = training()
    before = ours.weights()
    optimizer = ESAM(torch.optim.SGD(ours.parameters(), lr=0.1))
    watch = Watch(ours, *ours.batches(1)[0])
    with pytest.raises(error, match=message):
        optimizer.step(lambda subset=None: break_it(watch(subset), subset))
    assert same(ours.weights(), before)
    ours.step(optimizer, *ours.batches(1)[0])  # and the next step works
    assert not same(ours.weights(), before)
