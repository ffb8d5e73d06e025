"""Each edit of activations and codes against its definition, in networks taken apart by hand."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from robust_augs.deepaugment import activation_edits, autoencoder
from robust_augs.deepaugment.activation_edits import BEFORE, WITHIN, edited_activations
from robust_augs.deepaugment.autoencoder import Autoencoder
from robust_augs.deepaugment.code_edits import CODE_EDITS, scale_bits
from robust_augs.deepaugment.super_resolution import SuperResolution
from torch import nn


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def features_of(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class Network(nn.Module):
    """The skeleton of EDSR: head, a body that is added to its input, tail."""

    def __init__(self, children=7):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.head = nn.Conv2d(3, 12, 3, padding=1)
            self.body = nn.Sequential(*(nn.Conv2d(12, 12, 3, padding=1) for _ in range(children)))
            self.tail = nn.Conv2d(12, 3, 3, padding=1)
        self.double().requires_grad_(False)

    def forward(self, images):
        features = self.head(images)
        return self.tail(self.body(features) + features)

    def by_hand(self, images, before=lambda x: x, within=lambda x: x, after=5, skipped=()):
        features = before(self.head(images))
        result = features
        for i, layer in enumerate(self.body):
            if i not in skipped:
                result = layer(result)
            if i == after - 1:
                result = within(result)
        return self.tail(result + features)


def run(monkeypatch, before, within, seed=0, network=None):
    """Outcome with the named edits alone to choose from."""
    network = network or Network()
    monkeypatch.setattr(activation_edits, "BEFORE", {before: BEFORE[before]})
    monkeypatch.setattr(activation_edits, "WITHIN", {within: WITHIN[within]})
    with edited_activations(network.head, network.body, generator(seed)):
        outcome = network(features_of(2, 3, 5, 4))
    monkeypatch.undo()
    assert not network.head._forward_hooks
    assert not any(layer._forward_hooks for layer in network.body)
    return outcome


def close(one, other):
    return torch.allclose(one, other, rtol=0, atol=1e-12)


def test_there_are_four_edits_before_the_body_and_five_in_it():
    assert list(BEFORE) == ["swap_channels", "keep_most", "flip_few_signs", "leave"]
    assert list(WITHIN) == ["negate", "activate", "flip", "skip", "leave"]


def test_to_leave_everything_gives_the_network_itself(monkeypatch):
    assert torch.equal(run(monkeypatch, "leave", "leave"), Network()(features_of(2, 3, 5, 4)))


@pytest.mark.parametrize("children", [3, 5, 6, 9])
def test_the_body_is_edited_after_its_fifth_child_or_the_last_but_one(children, monkeypatch):
    network = Network(children)
    expected = network.by_hand(features_of(2, 3, 5, 4), within=lambda x: -x, after=min(5, children - 1))
    assert close(run(monkeypatch, "leave", "negate", network=network), expected)


@pytest.mark.parametrize(
    ("within", "ways"),
    [
        ("activate", [lambda x: x * (x > 0), lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))]),
        ("flip", [lambda x: x[:, torch.arange(11, -1, -1)][:, :, [4, 3, 2, 1, 0]], lambda x: x.flip(1).flip(3)]),
    ],
)
def test_of_two_ways_the_first_comes_in_a_third(within, ways, monkeypatch):
    network, images = Network(), features_of(2, 3, 5, 4)
    expected = [network.by_hand(images, within=way) for way in ways]
    counts = [0, 0]
    for seed in range(90):
        outcome = run(monkeypatch, "leave", within, seed, network)
        (way,) = [i for i in range(2) if close(outcome, expected[i])]
        counts[way] += 1
    assert 12 <= counts[0] <= 48  # four standard deviations


def test_up_to_three_children_are_skipped_but_never_the_first_two(monkeypatch):
    network, images = Network(), features_of(2, 3, 5, 4)
    choices = [skipped for count in (1, 2, 3) for skipped in combinations(range(2, 7), count)]
    expected = {skipped: network.by_hand(images, skipped=skipped) for skipped in choices}
    seen = set()
    for seed in range(100):
        outcome = run(monkeypatch, "leave", "skip", seed, network)
        (skipped,) = [skipped for skipped, other in expected.items() if close(outcome, other)]
        seen.add(skipped)
    assert {len(skipped) for skipped in seen} == {1, 2, 3}
    assert {child for skipped in seen for child in skipped} == {2, 3, 4, 5, 6}


def test_what_changes_the_shape_cannot_be_skipped(monkeypatch):
    network = Network(2)
    network.body.append(nn.Conv2d(12, 12, 3).double())
    with pytest.raises(ValueError, match=r"cannot be skipped: Conv2d turns \(2, 12, 5, 4\) into \(2, 12, 3, 2\)"):
        run(monkeypatch, "leave", "skip", network=network)
    assert not network.body[2]._forward_hooks


def test_the_edit_before_the_body_reaches_also_what_is_added_to_it(monkeypatch):
    network, images = Network(), features_of(2, 3, 5, 4)
    monkeypatch.setitem(BEFORE, "double", lambda features, random: 2 * features)
    expected = network.by_hand(images, before=lambda x: 2 * x)
    assert close(run(monkeypatch, "double", "leave", network=network), expected)


def test_the_network_works_on_values_up_to_255(monkeypatch):
    network, images = Network(), torch.rand(1, 3, 5, 4, generator=generator(), dtype=torch.float64)
    monkeypatch.setattr(activation_edits, "BEFORE", {"leave": BEFORE["leave"]})
    monkeypatch.setattr(activation_edits, "WITHIN", {"leave": WITHIN["leave"]})
    editor = SuperResolution(network=network, head="head", body="body")
    assert close(editor.distort(network, images, generator()), network(images * 255) / 255)


def test_channels_are_swapped_in_pairs():
    features = torch.arange(64.0).view(1, 64, 1, 1).expand(2, 64, 3, 3)
    for seed in range(20):
        order = BEFORE["swap_channels"](features, generator(seed))[0, :, 0, 0].long().tolist()
        assert sorted(order) == list(range(64))
        assert sum(i != c for i, c in enumerate(order)) <= 10
        cycles, left = 0, set(range(64))
        while left:
            i = left.pop()
            cycles += 1
            while order[i] in left:
                i = order[i]
                left.discard(i)
        assert 64 - cycles <= 5  # so many swaps a permutation takes


def test_masks_and_signs_hit_their_share_of_the_activations():
    features = 1 + features_of(4, 8, 40, 40).abs()
    kept = BEFORE["keep_most"](features, generator())
    assert ((kept == 0) | (kept == features)).all()
    assert abs((kept == features).double().mean() - 0.95) < 0.005
    signed = BEFORE["flip_few_signs"](features, generator())
    assert torch.equal(signed.abs(), features)
    assert abs((signed == -features).double().mean() - 0.025) < 0.004


def test_edits_of_activations_are_drawn_with_equal_probability(monkeypatch):
    calls = []

    def note(name):
        return lambda features, random: calls.append(name) or features

    for table in (BEFORE, WITHIN):
        for name in table:
            if name != "skip":
                monkeypatch.setitem(table, name, note((id(table), name)))
    network, random = Network(3), generator()
    for _ in range(1000):
        with edited_activations(network.head, network.body, random):
            network(features_of(1, 3, 1, 1))
    for table in (BEFORE, WITHIN):
        for name in table:
            if name != "skip":
                assert abs(calls.count((id(table), name)) / 1000 - 1 / len(table)) < 0.07  # five standard deviations


def test_positions_of_the_code_are_zeroed_or_negated_in_all_channels():
    code = 1 + features_of(2, 6, 60, 60).abs()
    for name, factor, share in (("zero_positions", 0, 0.2), ("negate_positions", -1, 0.1)):
        ratio = CODE_EDITS[name](code, generator()) / code
        assert set(ratio.unique().tolist()) == {float(factor), 1.0}
        assert (ratio == ratio[:, :1]).all()
        assert abs((ratio == factor).double().mean() - share) < 0.025
        assert not torch.equal(ratio[0], ratio[1])


@pytest.mark.parametrize("channels", [4, 12])
def test_the_first_ten_channels_are_permuted(channels):
    code = torch.arange(float(channels)).view(1, channels, 1, 1)
    orders = {tuple(CODE_EDITS["permute_channels"](code, generator(seed)).flatten().tolist()) for seed in range(20)}
    assert len(orders) > 10
    for order in orders:
        assert sorted(order[:10]) == list(range(min(10, channels)))
        assert list(order[10:]) == list(range(10, channels))


def test_five_channels_or_all_are_flipped_along_the_same_axes():
    code = features_of(2, 12, 4, 5)
    flips = {"rows": code.flip(2), "columns": code.flip(3), "both": code.flip(2).flip(3)}
    for name, count in (("flip_five", 5), ("flip_all", 12)):
        seen = set()
        for seed in range(40):
            result = CODE_EDITS[name](code, generator(seed))
            ways = {}
            for axes, flipped in flips.items():
                ways[axes] = sum(torch.equal(result[:, c], flipped[:, c]) for c in range(12))
            (axes,) = [axes for axes, hits in ways.items() if hits == count]
            assert sum(torch.equal(result[:, c], code[:, c]) for c in range(12)) == 12 - count
            seen.add(axes)
        assert seen == set(flips)


def taps(name, channels, seed):
    """The kernels (C, C, 3, 3) of a code edit that is a convolution: its answers to a point in every channel."""
    kernels = torch.zeros(channels, channels, 3, 3, dtype=torch.float64)
    for j in range(channels):
        point = torch.zeros(1, channels, 3, 3, dtype=torch.float64)
        point[0, j, 1, 1] = 1
        answer = CODE_EDITS[name](point, generator(seed))[0]
        for a in range(3):
            for b in range(3):
                kernels[:, j, a, b] = answer[:, 2 - a, 2 - b]
    return kernels


@pytest.mark.parametrize("name", ["convolve_noise", "add_channels", "shift_channels"])
def test_code_edits_by_convolution_are_convolutions_that_keep_the_size(name):
    code = features_of(2, 8, 5, 6)
    expected = F.conv2d(code, taps(name, 8, 3), padding=1)
    assert close(CODE_EDITS[name](code, generator(3)), expected)


def test_the_noise_of_the_near_identity_is_uniform_of_a_tenth():
    kernels = taps("convolve_noise", 12, 0)
    for j in range(12):
        kernels[j, j, 1, 1] -= 1
    assert -0.1 <= kernels.min() < -0.098
    assert 0.098 < kernels.max() <= 0.1
    assert abs(kernels.mean()) < 0.008


def test_channels_are_added_to_half_of_the_channels():
    counts, places = [], set()
    for seed in range(8):
        kernels = taps("add_channels", 16, seed)
        assert ((kernels == 0) | (kernels == 1)).all()
        for j in range(16):
            assert kernels[j, j, 1, 1] == 1
            kernels[j, j, 1, 1] = 0
        extra = kernels.sum(dim=(1, 2, 3))
        assert extra.max() == 1
        counts.append(float(extra.mean()))
        places |= {tuple(tap) for tap in kernels.nonzero()[:, 2:].tolist()}
    assert abs(sum(counts) / len(counts) - 0.5) < 0.2
    assert len(places) == 9


def test_channels_move_by_a_pixel_with_the_channel_before_or_anew():
    repeats, places = [], set()
    for seed in range(6):
        kernels = taps("shift_channels", 32, seed)
        own = torch.stack([kernels[j, j] for j in range(32)])
        assert kernels.sum() == own.sum() == 32
        assert (own.sum(dim=(1, 2)) == 1).all()
        place = own.flatten(1).argmax(dim=1)
        repeats.append(float((place[1:] == place[:-1]).double().mean()))
        places |= set(place.tolist())
    # 80% of the channels repeat the move, and a ninth of the others draws the same one.
    assert abs(sum(repeats) / len(repeats) - (0.8 + 0.2 / 9)) < 0.14
    assert len(places) == 9


def test_bits_are_scaled_by_three_and_noise_that_is_symmetric_about_it():
    spreads = []
    for seed in range(20):
        factors = scale_bits(torch.ones(1, 4, 16, 16, dtype=torch.float64), generator(seed))
        assert factors.min() >= 1
        assert factors.max() <= 5
        spread = float(factors.max() - 3)
        assert abs(factors.mean() - 3) < 0.1 * spread
        spreads.append(spread)
    assert max(spreads) - min(spreads) > 1
    assert scale_bits(torch.zeros(1, 2, 3, 3), generator()).abs().max() == 0


class Code(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh())
        self.decoder = nn.Identity()


@pytest.mark.parametrize("binarise", [True, False])
def test_the_decoder_gets_the_edited_code_or_random_signs_with_its_mean(binarise, monkeypatch):
    network = Code().double().requires_grad_(False)
    images = torch.rand(1, 3, 2, 2, generator=generator(), dtype=torch.float64)
    monkeypatch.setattr(autoencoder, "CODE_EDITS", {"half": lambda code, random: code / 2})
    editor = Autoencoder(network=network, encoder="encoder", decoder="decoder", binarise=binarise)
    expected = network.encoder(images) / 2
    plain, random = [], generator()
    for _ in range(2000):
        decoded = editor.distort(network, images, random)
        if decoded.abs().max() <= 1:
            if binarise:
                assert (decoded.abs() == 1).all()
            plain.append(decoded)
    mean = torch.stack(plain).mean(dim=0)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.17 if binarise else 1e-12)


def test_one_of_nine_edits_of_the_code_scales_the_bits(monkeypatch):
    network = Code().requires_grad_(False)
    calls = []
    for name in CODE_EDITS:
        monkeypatch.setitem(CODE_EDITS, name, lambda code, random, name=name: calls.append(name) or code)
    monkeypatch.setattr(autoencoder, "scale_bits", lambda bits, random: calls.append("scale_bits") or bits)
    editor, random = Autoencoder(network=network, encoder="encoder", decoder="decoder"), generator()
    for _ in range(1800):
        editor.distort(network, torch.rand(1, 3, 1, 1, generator=random), random)
    assert len(calls) == 1800
    assert len(set(calls)) == 9
    for name in set(calls):
        assert abs(calls.count(name) - 200) < 67  # five standard deviations
