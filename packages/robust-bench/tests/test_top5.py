"""Top-5 and Zipf distances against full rankings in plain Python, laws, and extreme cases."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.top5 import (
    LARGEST,
    mean_top5_distance,
    sequence_top5_distances,
    sequence_zipf_distances,
    top5_classes,
    top5_distance,
    zipf_distance,
)


def ranking(logits):
    """The classes, best first, ties by index."""
    return sorted(range(len(logits)), key=lambda index: (-logits[index], index))


def top5(old, new):
    """The paper's double sum: how many of the places 1..5 lie between k and sigma(k)."""
    sigma = [new.index(label) + 1 for label in old]
    distance = 0
    for k in range(1, 6):
        for j in range(min(k, sigma[k - 1]) + 1, max(k, sigma[k - 1]) + 1):
            distance += 1 <= j - 1 <= 5
    return distance


def zipf(old, new):
    return sum(abs(1 / k - 1 / (new.index(label) + 1)) / k for k, label in enumerate(old, start=1))


def oracle(sequences, distance, noise, difficulty):
    means = []
    for sequence in sequences:
        ranked = [ranking(frame) for frame in sequence]
        if noise:
            pairs = [(ranked[0], frame) for frame in ranked[1:]]
        else:
            chains = [ranked[start::difficulty] for start in range(difficulty)]
            pairs = [pair for chain in chains for pair in itertools.pairwise(chain)]
        means.append(sum(distance(*pair) for pair in pairs) / len(pairs))
    return means


@st.composite
def frames(draw):
    """Logits (N, T, K) with many ties."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(4, 6), st.integers(5, 9)))
    levels = draw(st.sampled_from([2, 4, 100]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.randint(levels, shape, generator=generator).to(draw(st.sampled_from([torch.float32, torch.bfloat16])))


@given(frames(), st.booleans(), st.integers(1, 3))
def test_agree_with_full_rankings(logits, noise, difficulty):
    expected = oracle(logits.tolist(), top5, noise, difficulty)
    found = sequence_top5_distances(top5_classes(logits), noise, difficulty)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert top5_distance(logits, noise, difficulty) == pytest.approx(sum(expected) / len(expected), abs=1e-12)
    expected = oracle(logits.tolist(), zipf, noise, difficulty)
    assert sequence_zipf_distances(logits, noise, difficulty).tolist() == pytest.approx(expected, abs=1e-12)
    assert zipf_distance(logits, noise, difficulty) == pytest.approx(sum(expected) / len(expected), abs=1e-12)


@given(frames())
def test_the_five_best_come_in_order_with_ties_by_index(logits):
    classes = top5_classes(logits)
    assert classes.dtype == torch.int64
    for frame, five in zip(logits.flatten(0, 1).tolist(), classes.flatten(0, 1).tolist(), strict=True):
        assert five == ranking(frame)[:5]
    assert torch.equal(classes[..., 0], logits.argmax(dim=-1))


def test_ties_are_settled_among_a_thousand_classes_and_at_infinity():
    logits = torch.zeros(2, 1000)
    logits[0, 700] = 1.0
    logits[1] = -torch.inf
    logits[1, 900] = -0.0
    logits[1, 999] = 0.0
    assert top5_classes(logits).tolist() == [[700, 0, 1, 2, 3], [900, 999, 0, 1, 2]]


@given(st.permutations(range(8)), st.permutations(range(8)), st.permutations(range(8)))
def test_laws_of_one_pair(old, new, names):
    def scores(*rankings):
        return torch.stack([-torch.tensor(order).argsort().double() for order in rankings])[None]

    pair = scores(old, new)
    same, renamed = scores(old, old), pair[:, :, torch.tensor(names)]
    for distance in (top5_distance, zipf_distance):
        assert distance(same, noise=False) == 0.0
        assert distance(renamed, noise=False) == pytest.approx(distance(pair, noise=False), abs=1e-12)
        assert distance(pair.exp(), noise=False) == distance(pair, noise=False)
    assert (top5_distance(pair, noise=False) == 0) == (old[:5] == new[:5])
    assert (zipf_distance(pair, noise=False) == 0) == (old == new)
    tail = scores(old, [*new[:5], *reversed(new[5:])])
    assert top5_distance(tail, noise=False) == top5_distance(pair, noise=False)


def test_the_largest_distance_is_eighteen_and_that_of_new_classes_fifteen():
    def distance(new):
        return sequence_top5_distances(torch.tensor([[[1, 2, 3, 4, 5], new]]), noise=False).item()

    every = itertools.permutations(range(1, 11), 5)
    assert max(top5([1, 2, 3, 4, 5, *range(6, 11)], [*new, *(set(range(1, 11)) - set(new))]) for new in every) == 18
    assert distance([4, 5, 6, 7, 8]) == distance([5, 4, 6, 7, 8]) == LARGEST == 18
    assert distance([6, 7, 8, 9, 10]) == 15
    assert distance([5, 4, 3, 2, 1]) == 12
    assert distance([2, 1, 3, 4, 5]) == 2
    assert distance([1, 2, 3, 4, 6]) == 1


def test_zipf_of_a_swap_at_the_top_has_a_closed_form():
    logits = torch.tensor([[[3.0, 2.0, 1.0], [2.0, 3.0, 1.0]]], dtype=torch.float16)
    assert zipf_distance(logits, noise=False) == (1 - 1 / 2) * (1 + 1 / 2)


def test_batches_and_a_log_of_integers_give_the_distance_of_the_whole():
    logits = torch.randn(11, 31, 20, generator=torch.Generator().manual_seed(0))
    whole = sequence_top5_distances(top5_classes(logits), noise=False)
    log = torch.cat([top5_classes(batch).to(torch.int16) for batch in logits.split(4)])
    torch.testing.assert_close(sequence_top5_distances(log, noise=False), whole, rtol=0, atol=0)
    parts = torch.cat([sequence_zipf_distances(batch, noise=True) for batch in logits.split(4)])
    torch.testing.assert_close(parts, sequence_zipf_distances(logits, noise=True), rtol=0, atol=0)
    assert top5_distance(logits, noise=False) == whole.mean().item()


def test_logits_stay_as_they_were_and_may_carry_gradients():
    logits = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = logits.detach().clone()
    assert top5_distance(logits, noise=True) > 0
    assert zipf_distance(logits, noise=True) > 0
    torch.testing.assert_close(logits.detach(), before, rtol=0, atol=0)


@pytest.mark.gpu
def test_the_gpu_ranks_as_the_cpu_does():
    logits = torch.randint(6, (4, 31, 1000), generator=torch.Generator().manual_seed(0)).float()
    there = logits.cuda()
    assert torch.equal(top5_classes(there).cpu(), top5_classes(logits))
    for noise in (False, True):
        assert top5_distance(there, noise) == top5_distance(logits, noise)
        assert zipf_distance(there, noise) == pytest.approx(zipf_distance(logits, noise), rel=1e-12)


@pytest.mark.parametrize("distance", [top5_distance, zipf_distance])
@pytest.mark.parametrize(
    ("logits", "settings", "error", "words"),
    [
        (torch.zeros(1, 2, 6, dtype=torch.int64), {}, TypeError, "logits must be a float tensor.*got torch.int64"),
        ([[[0.0] * 6] * 2], {}, TypeError, "logits must be a float tensor, one number per class, got list"),
        (torch.zeros(2, 6), {}, ValueError, r"shape \(N, T, K\): sequences, frames, classes; got \(2, 6\)"),
        (torch.full((1, 2, 6), math.nan), {}, ValueError, "without NaN, got a NaN"),
        (torch.zeros(1, 1, 6), {}, ValueError, r"at least 2 frames to compare"),
        (torch.zeros(1, 3, 6), {"difficulty": 3}, ValueError, r"at least 4 frames to compare"),
        (torch.zeros(1, 3, 6), {"difficulty": 0}, ValueError, "difficulty must be at least 1"),
        (torch.zeros(0, 3, 6), {}, ValueError, "no sequence to average over"),
    ],
)  # fmt: skip
def test_say_what_is_wrong_with_logits(distance, logits, settings, error, words):
    with pytest.raises(error, match=words):
        distance(logits, noise=False, **settings)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: top5_classes(torch.zeros(2, 4)), ValueError, r"at least 5 classes, got logits of the shape \(2, 4\)"),
        (lambda: top5_classes(torch.tensor(1.0)), ValueError, "got a single number"),
        (
            lambda: sequence_top5_distances(torch.zeros(1, 2, 5), False),
            TypeError,
            r"classes must be a tensor of integer class indices, got torch.float32: use top5_classes\(logits\)",
        ),
        (lambda: sequence_top5_distances([[[1, 2, 3, 4, 5]] * 2], False), TypeError, "got list: use top5_classes"),
        (
            lambda: sequence_top5_distances(torch.arange(12).reshape(1, 2, 6), False),
            ValueError,
            r"classes must have the shape \(N, T, 5\), got \(1, 2, 6\)",
        ),
        (
            lambda: sequence_top5_distances(torch.tensor([[[1, 2, 3, 4, 5], [1, 2, 3, 4, 1]]]), False),
            ValueError,
            "one class twice in a frame",
        ),
    ],
)
def test_say_what_is_wrong_with_classes(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_mean_is_relative_to_a_baseline_that_must_be_given():
    own = {"tilt": 1.5, "scale": 18.0}
    assert mean_top5_distance(own, own) == 1.0
    assert mean_top5_distance({"scale": 9.0, "tilt": 0.0}, baseline=own) == 0.25
    with pytest.raises(TypeError, match="baseline"):
        mean_top5_distance(own)


@pytest.mark.parametrize(
    ("distances", "baseline", "error", "words"),
    [
        ({"tilt": 1.0}, {"tilt": 1.0, "scale": 1.0}, ValueError, "distances lacks scale: .* exactly the 2 names of"),
        ({"tilt": 1.0, "shear": 1.0}, {"tilt": 1.0}, ValueError, "distances has shear, unknown to the baseline"),
        ({"tilt": 18.5}, {"tilt": 1.0}, ValueError, r"distances\['tilt'\] must be in \[0, 18\], got 18.5$"),
        ({"tilt": math.nan}, {"tilt": 1.0}, ValueError, r"distances\['tilt'\] is NaN"),
        ({"tilt": 1.0}, {"tilt": 0.0}, ValueError, r"baseline\['tilt'\] is 0"),
        ({"tilt": 1.0}, None, TypeError, "baseline must map names to rates"),
    ],
)  # fmt: skip
def test_says_which_distance_is_wrong(distances, baseline, error, words):
    with pytest.raises(error, match=words):
        mean_top5_distance(distances, baseline)


@pytest.mark.shared_data
def test_of_two_published_models_the_more_robust_one_moves_less(shared):
    models = json.loads((shared / "metrics" / "resnext_wsl_tables.json").read_text())["models"]
    plain, robust = (models[name]["imagenet_p_t5d"] for name in ("resnext101_32x8d", "resnext101_32x8d_wsl"))
    published = models["resnext101_32x8d_wsl"]["published"]["mT5D"] / models["resnext101_32x8d"]["published"]["mT5D"]
    assert mean_top5_distance(robust, plain) == pytest.approx(published, abs=0.02)  # AlexNet's weights are not known
