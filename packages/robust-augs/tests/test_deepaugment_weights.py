"""Each edit of weights against its definition in plain loops."""

import math
from functools import cache

import pytest
import torch
from robust_augs.deepaugment import autoencoder_weights, super_resolution_weights
from robust_augs.deepaugment.autoencoder_weights import WEIGHT_EDITS as CAE_EDITS
from robust_augs.deepaugment.kernels import keep_largest, rotate
from robust_augs.deepaugment.layers import filters, residual_blocks
from robust_augs.deepaugment.super_resolution_weights import WEIGHT_EDITS as EDSR_EDITS
from torch import nn

FEATURES = 6


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(FEATURES, FEATURES, 3), nn.ReLU(), nn.Conv2d(FEATURES, FEATURES, 3))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fill(module, seed=0):
    random = generator(seed)
    for parameter in module.double().parameters():
        parameter.requires_grad_(False).copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return module


def gelu(w):
    return w * 0.5 * (1 + math.erf(w / math.sqrt(2)))


def edited(edit, network, layers, seed):
    """What `edit` changes in `network`: a list of (name of the parameter, before, after). It is undone afterwards."""
    before = {name: value.clone() for name, value in network.named_parameters()}
    edit(layers, generator(seed))
    changes = []
    for name, value in network.named_parameters():
        if not torch.equal(value, before[name]):
            changes.append((name, before[name], value.clone()))
            value.copy_(before[name])
    return changes


@cache
def body():
    network = fill(nn.Sequential(*(Block() for _ in range(16)), nn.Conv2d(FEATURES, FEATURES, 3)))
    return network, residual_blocks(network)


def edsr(name, seed=0):
    return edited(EDSR_EDITS[name], *body(), seed)


def names(changes):
    return [name for name, _, _ in changes]


def block_of(changes):
    """The one block that all changes lie in."""
    (block,) = {name.split(".")[0] for name in names(changes)}
    return int(block)


def test_there_are_seventeen_and_eight_edits():
    assert len(EDSR_EDITS) == 17
    assert len(CAE_EDITS) == 8


@pytest.mark.parametrize(
    ("name", "layers", "blocks"),
    [
        ("reverse", ["0.weight", "0.bias", "2.weight", "2.bias"], {0, 3, 6, 9}),
        ("negate", ["0.weight", "0.bias"], {1, 4, 7}),
        ("zero", ["0.weight", "0.bias"], {0, 3, 6, 9}),
        ("minus_gelu", ["0.weight", "2.weight"], {0, 3, 6, 9}),
        ("laplacian", ["0.weight"], {0, 3, 6, 9}),
        ("full_laplacian", ["0.weight"], {0, 3, 6, 9}),
        ("scale", ["2.weight"], {0, 3, 6, 9}),
        ("mirror", ["0.weight", "2.weight"], {0, 3, 6, 9}),
        ("shift", ["0.weight"], {1, 5, 9}),
        ("convolve_noise", ["0.weight"], {0, 3, 6, 9}),
        ("convolve_dirichlet", ["2.weight"], {1, 5, 9}),
        ("add_noise", ["2.weight"], set(range(15))),
    ],
)
def test_an_edit_of_one_block_changes_these_layers_of_one_of_these_blocks(name, layers, blocks):
    seen = set()
    for seed in range(20 if len(blocks) < 5 else 100):
        changes = edsr(name, seed)
        block = block_of(changes)
        assert names(changes) == [f"{block}.body.{layer}" for layer in layers]
        seen.add(block)
    assert seen == blocks


@pytest.mark.parametrize("name", ["rotate_kernels", "change_signs", "mask", "negate_half", "keep_the_largest"])
def test_an_edit_of_five_layers_changes_weights_of_at_most_five(name):
    counts, seen, layers = [], set(), set()
    for seed in range(30):
        changes = names(edsr(name, seed))
        counts.append(len(changes))
        seen |= {int(change.split(".")[0]) for change in changes}
        layers |= {change.split(".body.")[1] for change in changes}
    assert max(counts) == 5
    assert min(counts) >= 1
    assert seen == set(range(15))
    both = name in ("rotate_kernels", "keep_the_largest")
    assert layers == ({"0.weight", "2.weight"} if both else {"0.weight"})


def test_reverse_negate_and_zero():
    for _, before, after in edsr("reverse"):
        for o in range(len(before)):
            assert torch.equal(after[o], before[len(before) - 1 - o])
    for _, before, after in edsr("negate"):
        assert torch.equal(after, -before)
    for _, _, after in edsr("zero"):
        assert after.abs().max() == 0


def test_minus_gelu():
    for _, before, after in edsr("minus_gelu"):
        expected = torch.tensor([-gelu(w) for w in before.flatten().tolist()]).view_as(before).double()
        torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "edge", "corner", "centre"), [("laplacian", 1, 0, -4), ("full_laplacian", -1, -1, 8)])
def test_the_laplacians_multiply_entry_by_entry(name, edge, corner, centre):
    ((_, before, after),) = edsr(name)
    for i in range(3):
        for j in range(3):
            factor = centre if i == j == 1 else edge if 1 in (i, j) else corner
            assert torch.equal(after[:, :, i, j], factor * before[:, :, i, j])


def scales_of(changes):
    for _, before, after in changes:
        yield after / before - 1


def test_the_scales_of_edsr_are_symmetric_about_one_with_a_spread_of_their_own():
    spreads = []
    for seed in range(40):
        (scale,) = scales_of(edsr("scale", seed))
        spreads.append(float(scale.abs().max()) / 2)
        torch.testing.assert_close(float(scale.std() / scale.abs().max()), 1 / math.sqrt(3), rtol=0.15, atol=0)
        assert abs(scale.mean() / scale.abs().max()) < 0.16  # five standard deviations
    assert max(spreads) <= 1
    assert max(spreads) - min(spreads) > 0.8


def test_mirror():
    (_, first, first_after), (_, last, last_after) = edsr("mirror")
    for column in range(3):
        assert torch.equal(first_after[..., column], first[..., 2 - column])
    assert torch.equal(last_after, -last)


def moved(kernel, row, column):
    """`kernel` read at an offset; what lies outside is 0."""
    result = torch.zeros(3, 3, dtype=torch.float64)
    for y in range(3):
        for x in range(3):
            if 0 <= y + row < 3 and 0 <= x + column < 3:
                result[y, x] = kernel[y + row, x + column]
    return result


def test_shift_moves_all_kernels_of_a_channel_alike_and_may_negate_them():
    seen = set()
    for seed in range(12):
        ((_, before, after),) = edsr("shift", seed)
        for channel in range(FEATURES):
            ways = [
                (row, column, sign)
                for row in (-1, 0, 1)
                for column in (-1, 0, 1)
                for sign in (-1, 1)
                if all(
                    torch.equal(after[o, channel], sign * moved(before[o, channel], row, column))
                    for o in range(FEATURES)
                )
            ]
            assert len(ways) == 1
            seen.add(ways[0])
    assert len(seen) == 18


def kernels_that_convolved(before, after):
    """Solve for kernels z with after[o, n] = sum over j of before[o, j] correlated with z[n, j], zeros outside."""
    count, channels = before.shape[:2]
    system = torch.zeros(count, 9, channels, 9, dtype=torch.float64)
    for o in range(count):
        for j in range(channels):
            for a in range(3):
                for b in range(3):
                    system[o, :, j, 3 * a + b] = moved(before[o, j], a - 1, b - 1).flatten()
    outcome = after.permute(0, 2, 3, 1).reshape(count * 9, channels)
    solution = torch.linalg.solve(system.view(count * 9, channels * 9), outcome)
    return solution.T.reshape(channels, channels, 9)


def test_convolve_noise_takes_kernels_of_two_u_times_uniform_less_one_over_six():
    spreads = []
    for seed in range(8):
        ((_, before, after),) = edsr("convolve_noise", seed)
        noise = 6 * kernels_that_convolved(before, after) + 1  # 2 u U
        assert noise.min() > -1e-8
        assert noise.max() <= 2
        spreads.append(float(noise.max()) / 2)
        torch.testing.assert_close(float(noise.mean() / noise.max()), 0.5, rtol=0, atol=0.1)
    assert max(spreads) - min(spreads) > 0.3


def test_convolve_dirichlet_takes_kernels_that_sum_to_one_with_most_of_it_in_few_entries():
    ((_, before, after),) = edsr("convolve_dirichlet")
    kernels = kernels_that_convolved(before, after)
    assert kernels.min() > -1e-8
    torch.testing.assert_close(kernels.sum(dim=2), torch.ones(FEATURES, FEATURES).double(), rtol=0, atol=1e-6)
    # The variance of an entry of the symmetric Dirichlet of nine is (1/9)(8/9)/(9 alpha + 1).
    expected = (1 / 9) * (8 / 9) / (0.9 + 1)
    torch.testing.assert_close(float(kernels.var()), expected, rtol=0.2, atol=0)


def test_add_noise_is_uniform_of_half_a_unit():
    ((_, before, after),) = edsr("add_noise")
    noise = after - before
    assert -0.5 <= noise.min() < -0.48
    assert 0.48 < noise.max() <= 0.5
    torch.testing.assert_close(float(noise.std()), 1 / math.sqrt(12), rtol=0.1, atol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotate_turns_kernels_or_channels_by_quarters(quarters):
    kernels = torch.randn(4, 4, 3, 3, generator=generator())
    expected, turned = kernels, kernels
    for _ in range(quarters):  # one quarter: [i, j] comes from [j, n - 1 - i]
        once, once_turned = torch.empty_like(kernels), torch.empty_like(kernels)
        for i in range(4):
            for j in range(4):
                once_turned[i, j] = turned[j, 3 - i]
                if i < 3 and j < 3:
                    once[:, :, i, j] = expected[:, :, j, 2 - i]
        expected, turned = once, once_turned
    assert torch.equal(rotate(kernels, quarters), expected)
    assert torch.equal(rotate(kernels, quarters, channels=True), turned)


def test_rotate_turns_what_is_not_square_by_a_half():
    kernels = torch.randn(4, 2, 3, 3, generator=generator())
    for quarters in (1, 2, 3):
        assert torch.equal(rotate(kernels, quarters, channels=True), kernels.flip(0, 1))


def test_rotated_layers_hold_the_same_weights_elsewhere():
    turned_channels = 0
    for seed in range(20):
        for _, before, after in edsr("rotate_kernels", seed):
            assert torch.equal(after.flatten().sort().values, before.flatten().sort().values)
            own = torch.equal(after.flatten(2).sort(dim=2).values, before.flatten(2).sort(dim=2).values)
            turned_channels += not own
    assert turned_channels > 10


def test_random_signs_and_masks_are_fair():
    signs, kept = [], []
    for seed in range(10):
        for _, before, after in edsr("change_signs", seed):
            assert torch.equal(after.abs(), before.abs())
            signs.append((after == before).double().mean())
        for _, before, after in edsr("mask", seed):
            assert ((after == 0) | (after == before)).all()
            kept.append((after == before).double().mean())
    assert abs(sum(signs) / len(signs) - 0.5) < 0.03
    assert 0.4 < sum(kept) / len(kept) < 0.51  # a layer drawn twice keeps a quarter
    assert max(kept) < 0.6


def test_half_of_the_filters_are_negated():
    exact = 0
    for seed in range(20):
        changes = edsr("negate_half", seed)
        for _, before, after in changes:
            negated = [torch.equal(a, -b) for a, b in zip(after, before, strict=True)]
            assert all(torch.equal(a, b) or n for a, b, n in zip(after, before, negated, strict=True))
            if len(changes) == 5:  # no layer was drawn twice
                assert sum(negated) == FEATURES // 2
                exact += 1
    assert exact > 0


def test_only_the_largest_entry_is_kept():
    for _, before, after in edsr("keep_the_largest"):
        for o in range(FEATURES):
            for i in range(FEATURES):
                kernel = before[o, i].flatten().tolist()
                expected = [w if w == max(kernel) else 0 for w in kernel]
                assert after[o, i].flatten().tolist() == expected


def test_the_largest_of_negative_entries_is_kept_too():
    kernels = -1 - torch.rand(2, 3, 3, 3, generator=generator())
    assert (keep_largest(kernels) != 0).sum() == 6


@cache
def cae():
    layers = [
        nn.Conv2d(8, 30, 5),
        nn.Conv2d(30, 30, 3),
        nn.ConvTranspose2d(30, 40, 2),
        *(nn.Conv2d(30, 30, 3) for _ in range(6)),
        nn.ConvTranspose2d(30, 31, 2, bias=False),
    ]
    return fill(nn.Sequential(*layers)), layers


def of_cae(name, seed=0):
    """The changes with the filters first, also where a transposed convolution has them second."""
    return [
        (change, *(w.transpose(0, 1) if change in ("2.weight", "9.weight") else w for w in values))
        for change, *values in edited(CAE_EDITS[name], *cae(), seed)
    ]


@pytest.mark.parametrize(
    ("name", "count", "layers"),
    [
        ("reverse", 2, range(3, 8)),
        ("negate", 1, range(6)),
        ("zero", 1, range(6)),
        ("minus_gelu", 1, range(2, 6)),
        ("scale", 2, range(6)),
        ("mask", 1, range(6)),
        ("rotate_kernels", 1, range(6)),
        ("negate_a_fifth", 1, range(6)),
    ],
)
def test_an_edit_of_the_autoencoder_changes_so_many_of_these_layers(name, count, layers):
    biases = name in ("reverse", "negate", "zero", "minus_gelu")
    seen = set()
    for seed in range(40):
        changed = names(of_cae(name, seed))
        own = sorted({change.split(".")[0] for change in changed}, key=int)
        assert len(own) == count
        assert changed == [f"{layer}.{p}" for layer in own for p in ("weight", "bias") if biases or p == "weight"]
        seen |= {int(layer) for layer in own}
    assert seen == set(layers)


@pytest.mark.parametrize(
    ("name", "count", "change"),
    [
        ("negate", lambda n: 12, lambda w: -w),
        ("zero", lambda n: 25, torch.zeros_like),
        ("minus_gelu", lambda n: 25, lambda w: w.clone().apply_(lambda x: -gelu(x))),
        ("negate_a_fifth", lambda n: n // 5, lambda w: -w),
    ],
)
def test_so_many_filters_of_the_autoencoder_change_with_their_biases(name, count, change):
    for seed in range(10):
        changes = of_cae(name, seed)
        which = [[not torch.equal(a, b) for a, b in zip(after, before, strict=True)] for _, before, after in changes]
        assert all(w == which[0] for w in which)  # the same filters of weight and bias
        for _, before, after in changes:
            assert sum(which[0]) == count(len(before))
            for changed, a, b in zip(which[0], after, before, strict=True):
                if changed:
                    torch.testing.assert_close(a, change(b), rtol=1e-12, atol=1e-12)


def test_two_layers_of_the_autoencoder_are_reversed_with_their_own_biases():
    for seed in range(10):
        for _, before, after in of_cae("reverse", seed):
            assert torch.equal(after, torch.stack(list(before)[::-1]))


def test_the_scales_of_the_autoencoder_reach_from_minus_one_to_three_times_their_spread():
    ratios = []
    for seed in range(40):
        for scale in scales_of(of_cae("scale", seed)):
            assert scale.min() >= -2
            assert scale.max() <= 6
            ratios.append(float(scale.max() / -scale.min()))
    assert abs(sum(ratios) / len(ratios) - 3) < 0.05


def test_mask_and_rotation_of_the_autoencoder():
    halves = {"mask": 0, "signs": 0}
    for seed in range(30):
        ((_, before, after),) = of_cae("mask", seed)
        masked = bool((after == 0).any())
        halves["mask" if masked else "signs"] += 1
        assert torch.equal(after, torch.where(after == before, before, 0 * before if masked else -before))
        assert 0.4 < (after == before).double().mean() < 0.6
        ((name, before, after),) = of_cae("rotate_kernels", seed)
        turns = [before.rot90(k, (2, 3)) for k in (1, 2, 3)]
        assert sum(torch.equal(after, turn) for turn in turns) == 1, name
    assert min(halves.values()) > 5


def test_fewer_filters_than_an_edit_wants_are_all_changed():
    layers = [fill(nn.Conv2d(2, 4, 3)) for _ in range(4)]
    before = [layer.weight.clone() for layer in layers]
    CAE_EDITS["zero"](layers, generator())
    assert sum(bool((layer.weight == 0).all()) for layer in layers) == 1
    assert sum(torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True)) == 3


@pytest.mark.parametrize(
    ("module", "table", "make", "count"),
    [(super_resolution_weights, EDSR_EDITS, body, 3), (autoencoder_weights, CAE_EDITS, cae, 1)],
    ids=["EDSR", "CAE"],
)
def test_edits_are_drawn_with_equal_probability(module, table, make, count, monkeypatch):
    calls = []
    for name in table:
        monkeypatch.setitem(table, name, lambda layers, random, name=name: calls.append(name))
    _, layers = make()
    random = generator()
    for _ in range(1000):
        module.edit_weights(layers, random)
    assert len(calls) == 1000 * count
    for name in table:
        share = 1 / len(table)
        assert abs(calls.count(name) / len(calls) - share) < 5 * math.sqrt(share / len(calls))


def test_the_filters_of_a_transposed_convolution_are_a_view():
    layer = nn.ConvTranspose2d(2, 5, 3).requires_grad_(False)
    filters(layer)[4] = 0
    assert layer.weight[:, 4].abs().max() == 0
    assert layer.weight[:, :4].abs().min() > 0
