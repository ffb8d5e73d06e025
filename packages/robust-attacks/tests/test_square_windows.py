"""The windows of Square: the published schedule, sides, and corners drawn from an image's own words."""

import pytest
import torch
from robust_attacks import ImageRandom
from robust_attacks._square_windows import Schedule, Windows


def schedule(**settings):
    return Schedule(**({"queries": 5000, "p_init": 0.8, "rescale": False} | settings))


ENDS = [(10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64), (6000, 128), (8000, 256)]


@pytest.mark.parametrize(
    ("proposal", "divisor"),
    [(0, 1), *ENDS, *((last + 1, 2 * divisor) for last, divisor in ENDS), (4999, 128), (10**6, 512)],
)
def test_the_fraction_is_halved_after_the_published_proposals(proposal, divisor):
    plain = schedule(queries=2 * 10**6)
    assert plain.fraction(plain.phase(proposal)) == 0.8 / divisor
    assert plain.phases(torch.tensor([[proposal]])).tolist() == [[plain.phase(proposal)]]


@pytest.mark.parametrize("queries", [100, 777, 5000, 10_000, 20_000])
def test_a_rescaled_schedule_goes_through_all_phases_in_the_same_rhythm(queries):
    squeezed, published = schedule(queries=queries, rescale=True), schedule()
    for proposal in range(0, queries, max(queries // 500, 1)):
        assert squeezed.phase(proposal) == published.phase(int(proposal * 10_000 / queries + 1e-9))
    proposals = torch.arange(queries)
    assert squeezed.phases(proposals).tolist() == [squeezed.phase(proposal) for proposal in range(queries)]
    assert int(squeezed.phases(proposals).max()) == 9


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 28), (7, 19), (4, 4), (1, 1), (1, 9), (224, 160)])
def test_sides_come_from_the_fraction_and_fit_into_the_image(height, width):
    whole = schedule().sides(height, width)
    odd = schedule().sides(height, width, 3, odd=True)
    for phase in range(10):
        side = round((0.8 / 2**phase * height * width) ** 0.5)
        assert whole[phase] == min(max(side, 1), height, width)
        wide = max(side, 3)
        assert odd[phase] == min(wide + 1 - wide % 2, height, width)
    assert list(whole) == sorted(whole, reverse=True)


def test_sides_on_cifar10_are_the_published_ones():
    assert schedule().sides(32, 32)[:8] == (29, 20, 14, 10, 7, 5, 4, 3)
    assert schedule().sides(32, 32, 3, odd=True)[:8] == (29, 21, 15, 11, 7, 5, 5, 3)


@pytest.mark.parametrize("shape", [(2, 9, 6), (1, 5, 5), (3, 3, 8), (1, 1, 1)])
def test_a_window_has_the_entries_of_its_square_and_repeats_the_last_one(shape):
    channels, height, width = shape
    sides = schedule().sides(height, width)
    windows = Windows(sides, torch.Size(shape), torch.device("cpu"))
    numbers = torch.arange(channels * height * width).reshape(shape)
    phases = torch.arange(10)
    size = windows.size(0)
    assert size == sides[0] ** 2
    entries, shares = windows.entries(phases, size), windows.shares(phases, size)
    patterns = windows.tabulate([torch.arange(side**2).reshape(side, side) for side in sides])
    for phase, side in enumerate(sides):
        square = numbers[:, :side, :side].flatten(1)
        assert torch.equal(entries[phase][:, : side**2], square)
        assert torch.equal(entries[phase][:, side**2 :], square[:, -1:].expand(channels, size - side**2))
        assert shares[phase].tolist() == [1.0] * side**2 + [0.0] * (size - side**2)
        assert patterns[phase].tolist() == list(range(side**2)) + [side**2 - 1] * (size - side**2)
        assert torch.equal(windows.entries(phase, side**2), square)


def test_corners_are_uniform_over_all_places_but_the_last():
    """As published: {0 .. H - side - 1} x {0 .. W - side - 1}, and 0 where that is empty."""
    windows = Windows((6, 3), torch.Size((1, 6, 8)), torch.device("cpu"))
    words = ImageRandom(0, torch.arange(20_000)).words("corner", 8)
    large = windows.corners(torch.zeros(20_000, dtype=torch.int64), words)
    assert set(large.tolist()) == {0, 1}
    small = windows.corners(torch.ones(20_000, dtype=torch.int64), words)
    rows, columns = small // 8, small % 8
    counts = torch.bincount(rows * 5 + columns, minlength=15)
    assert int(rows.max()) == 2
    assert int(columns.max()) == 4
    assert (counts - 20_000 / 15).abs().max() < 5 * (20_000 / 15) ** 0.5


def test_the_last_word_counts_where_all_are_rejected_and_the_first_that_is_accepted_else():
    windows = Windows((1,), torch.Size((1, 4, 2)), torch.device("cpu"))
    last = 2**32 - 1
    rows = [[last, 0, 0, 0], [0, last, 0, 0], [0, 0, 0, last], [0, 0, 0, 0]]  # of 3 places: w = 0 alone is rejected
    words = torch.tensor([[*row, 5, 5, 5, 5] for row in rows])
    assert windows.corners(torch.zeros(4, dtype=torch.int64), words).tolist() == [4, 4, 4, 0]
