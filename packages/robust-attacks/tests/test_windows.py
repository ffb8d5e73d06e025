import pytest
import torch
from robust_attacks import ImageRandom
from robust_attacks._windows import Window, check_place, check_size, window_of


def test_a_mask_covers_its_window_and_nothing_else():
    mask = Window(2, 3, 5, 6).mask(torch.tensor([[0, 0], [3, 2]]))
    for place, one in zip([(0, 0), (3, 2)], mask, strict=True):
        expected = torch.zeros(5, 6, dtype=torch.bool)
        expected[place[0] : place[0] + 2, place[1] : place[1] + 3] = True
        assert torch.equal(one[0], expected)


def test_random_places_reach_every_place_equally_often():
    window, count = Window(3, 2, 5, 4), 6000
    corners = window.random_places("w", ImageRandom(0, torch.arange(count)), 2)
    assert corners.shape == (count, 2, 2)
    for run in range(2):
        counts = torch.zeros(3, 3).index_put_(tuple(corners[:, run].T), torch.ones(count), accumulate=True)
        expected = count / 9
        assert float(((counts - expected) ** 2 / expected).sum()) < 45  # chi-square of 8 degrees, p ~ 1e-6
    assert float((corners[:, 0] == corners[:, 1]).all(dim=1).double().mean()) < 0.2  # runs have places of their own


@pytest.mark.parametrize("sides", [(3, 2), (8, 9), (1, 1), (5, 9)])
def test_the_best_places_are_those_of_brute_force(sides):
    values = torch.rand(4, 2, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    window = Window(*sides, 8, 9)
    best = window.best_places(values, 3)
    strides = [max(1, side // 4) for side in sides]
    grid = [
        (top, left)
        for top in sorted({*range(0, 8 - sides[0] + 1, strides[0]), 8 - sides[0]})
        for left in sorted({*range(0, 9 - sides[1] + 1, strides[1]), 9 - sides[1]})
    ]
    for image, corners in zip(values, best, strict=True):

        def total(place, image=image):
            return float(image[:, place[0] : place[0] + sides[0], place[1] : place[1] + sides[1]].sum())

        ordered = sorted(grid, key=total, reverse=True)
        assert [tuple(corner) for corner in corners.tolist()] == [ordered[i % len(ordered)] for i in range(3)]


def test_ties_go_to_the_first_place():
    assert Window(2, 2, 4, 4).best_places(torch.ones(1, 1, 4, 4), 2).tolist() == [[[0, 0], [0, 1]]]


def test_sizes():
    images = torch.zeros(1, 3, 32, 20)
    assert window_of("A", images, None) == Window(6, 6, 32, 20)  # sqrt(0.05 * 640) = 5.66
    assert window_of("A", images, 4) == Window(4, 4, 32, 20)
    assert window_of("A", images, (32, 1)) == Window(32, 1, 32, 20)
    assert window_of("A", torch.zeros(1, 1, 1, 400), None) == Window(1, 4, 1, 400)
    with pytest.raises(ValueError, match="A: a patch of 4 x 21 pixels does not fit into images of 32 x 20"):
        window_of("A", images, (4, 21))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "A: size must be at least 1, got 0"),
        (2.0, "A: size must be an int"),
        ((2, 0), "A: width of size must be at least 1"),
        ((2, 3, 4), r"A: size must be one int, a tuple \(height, width\) or None"),
        ([2, 3], r"A: size must be one int, a tuple"),
    ],
)
def test_wrong_sizes_are_refused(size, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check_size("A", size)


@pytest.mark.parametrize("place", ["best", (1,), (1, -1), (1.0, 2), 3, (True, 0), None])
def test_wrong_places_are_refused(place):
    with pytest.raises(ValueError, match='A: place must be "searched", "random" or the'):
        check_place("A", place)


def test_a_place_from_which_the_patch_leaves_the_image_is_refused():
    Window(2, 3, 5, 6).check_place("A", (3, 3))
    with pytest.raises(
        ValueError, match=r"at place \(4, 0\) leaves images of 5 x 6: row and column may be at most 3 and 3"
    ):
        Window(2, 3, 5, 6).check_place("A", (4, 0))
