"""The bumps of Square against plain loops, from the text of the paper."""

import pytest
import torch
from robust_attacks import ImageRandom
from robust_attacks._square_bumps import bump, tiles


def slow_hill(height, width, power):
    """Concentric squares, one entry after the other: what lies within k of the middle gets 1 / (k + 1)^power."""
    hill = [[0.0] * width for _ in range(height)]
    for k in range(max(height // 2, width // 2) + 1):
        for row in range(height):
            for column in range(width):
                if abs(row - height // 2) <= k and abs(column - width // 2) <= k:
                    hill[row][column] += 1 / (k + 1) ** power
    return hill


def slow_bump(side, norm):
    """Unit hill above, minus a unit hill below, of unit norm together."""

    def unit(rows):
        length = sum(abs(entry) ** norm for row in rows for entry in row) ** (1 / norm)
        return [[entry / length for entry in row] for row in rows]

    power = {2: 2, 1: 4}[norm]
    upper = unit(slow_hill(side // 2, side, power)) if side > 1 else []
    lower = unit(slow_hill(side - side // 2, side, power))
    return torch.tensor(unit(upper + [[-entry for entry in row] for row in lower]), dtype=torch.float64)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8, 13])
def test_a_bump_is_a_hill_above_a_valley(side, norm):
    pattern = bump(side, norm)
    torch.testing.assert_close(pattern, slow_bump(side, norm), rtol=1e-12, atol=0)
    assert float(torch.linalg.vector_norm(pattern, norm)) == pytest.approx(1, rel=1e-12)
    assert (pattern[: side // 2] > 0).all()
    assert (pattern[side // 2 :] < 0).all()


def bits(words):
    return [word >> bit & 1 for word in words for bit in range(31, -1, -1)]


def slow_tiles(shape, seed, number, norm):
    """One image: which tiles there are, and from which bits, written out."""
    channels, height, width = shape
    shorter = min(height, width)
    side = shorter // 5 if shorter >= 5 else shorter
    start = (shorter - 5 * side) // 2 if shorter >= 5 else 0
    corners = [(start + side * i, start + side * j) for i in range(height // side) for j in range(width // side)]
    corners = corners if shorter >= 5 else [(0, 0)]
    random = ImageRandom(seed, torch.tensor([number]))
    signs = bits(random.words("square/start", len(corners) * channels)[0].tolist())
    turns = bits(random.words("square/start-orientation", len(corners))[0].tolist())
    found = torch.zeros(shape, dtype=torch.float64)
    for tile, (top, left) in enumerate(corners):
        pattern = slow_bump(side, norm)
        pattern = pattern.T if turns[tile] else pattern
        for channel in range(channels):
            sign = 2 * signs[tile * channels + channel] - 1
            for row in range(side):
                for column in range(side):
                    if top + row < height and left + column < width:
                        found[channel, top + row, left + column] = sign * pattern[row, column]
    return found


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize(
    "shape", [(1, 10, 10), (3, 13, 13), (2, 9, 9), (2, 6, 14), (1, 17, 5), (2, 4, 4), (3, 3, 7), (2, 1, 1), (40, 5, 5)]
)
def test_the_start_is_made_of_tiles(shape, norm):
    ids = torch.tensor([4, 0, 7])
    found = tiles(torch.zeros(3, *shape), ImageRandom(5, ids), norm)
    expected = torch.stack([slow_tiles(shape, 5, int(number), norm) for number in ids])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_tiles_cover_cifar10_but_for_a_frame_of_one_pixel():
    covered = tiles(torch.zeros(1, 3, 32, 32), ImageRandom(0, torch.tensor([0])), 2)[0] != 0
    frame = torch.ones(32, 32, dtype=torch.bool)
    frame[1:31, 1:31] = False
    assert (covered == ~frame).all()
