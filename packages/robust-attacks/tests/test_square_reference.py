"""Square against a slow reading of the paper: one image, one proposal, one entry after the other, in float64."""

import math

import pytest
import torch
from robust_attacks import L1, L2, ImageRandom, Linf, margin, targeted
from robust_attacks.square import Square

SEED = 3


class Draws:
    """The words of one image, read one by one, as the table of draws in the documentation of `ImageRandom` says."""

    def __init__(self, number):
        self.random = ImageRandom(SEED, torch.tensor([number]))

    def signs(self, use, count):
        words = self.random.words(use, (count + 31) // 32)[0].tolist()
        return [1 if words[i // 32] >> (31 - i % 32) & 1 else -1 for i in range(count)]

    def block(self, index):
        return self.random.words("square/proposal", 4, start=4 * index)[0].tolist()

    def below(self, index, n):
        accepted = [word * n >> 32 for word in self.block(index) if word * n % 2**32 >= 2**32 % n]
        return accepted[0] if accepted else self.block(index)[3] * n >> 32

    def corner(self, index, side, height, width):
        return self.below(index, max(height - side, 1)), self.below(index + 1, max(width - side, 1))

    def bits(self, index, count):
        words = self.block(index)
        return [1 if words[i // 32] >> (31 - i % 32) & 1 else -1 for i in range(count)]


def fraction(proposal, queries, rescale):
    if rescale:
        proposal = proposal * 10_000 // queries
    for last, divisor in [(10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64), (6000, 128)]:
        if proposal <= last:
            return 0.8 / divisor
    return 0.8 / (256 if proposal <= 8000 else 512)


class Slow:
    """The random search; what is proposed is up to the threat."""

    def __init__(self, model, image, label, number, eps, queries, rescale=False, target=False):
        self.model, self.image, self.label, self.eps, self.queries = model, image, label, eps, queries
        self.rescale, self.target = rescale, target
        self.draws = Draws(number)
        self.channels, self.height, self.width = image.shape
        self.forwards = 0

    def judge(self, point):
        self.forwards += 1
        logits = self.model(point[None])[0].tolist()
        other = max(logit for k, logit in enumerate(logits) if k != self.label)
        loss = logits[self.label] - other
        predicted = logits.index(max(logits))
        return (-loss, predicted == self.label) if self.target else (loss, predicted != self.label)

    def run(self):
        point = self.start()
        loss, won = self.judge(point)
        proposal = 0
        while not won and proposal < self.queries:
            share = fraction(proposal, self.queries, self.rescale)
            candidate = self.propose(point, proposal, share)
            proposal += 1
            if candidate is None:
                continue
            lower, won = self.judge(candidate)
            if lower < loss or won:
                point, loss = candidate, lower
        return point


class SlowLinf(Slow):
    """Points are lists of numbers, channel by channel and row by row."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.places = [(c, i, j) for c in range(self.channels) for i in range(self.height) for j in range(self.width)]
        self.bounds = {place: self.innermost(self.image[place]) for place in self.places}

    def innermost(self, pixel):
        """The outermost numbers of the image's dtype that are inside ball and box."""
        clean = float(pixel)
        low, high = (torch.tensor(clean + step).clamp(0, 1).to(pixel.dtype) for step in (-self.eps, self.eps))
        if clean - float(low) > self.eps:
            low = torch.nextafter(low, pixel)
        if float(high) - clean > self.eps:
            high = torch.nextafter(high, pixel)
        return float(low), float(high)

    def stepped(self, point, place, step):
        low, high = self.bounds[place]
        point[place] = min(max(point[place] + step, low), high)

    def tensor(self, point):
        return torch.tensor([point[place] for place in self.places], dtype=self.image.dtype).view_as(self.image)

    def judge(self, point):
        return super().judge(self.tensor(point))

    def run(self):
        return self.tensor(super().run())

    def start(self):
        point = {place: float(self.image[place]) for place in self.places}
        signs = self.draws.signs("square/start", self.channels * self.width)
        for c, row, column in self.places:
            self.stepped(point, (c, row, column), self.eps * signs[c * self.width + column])
        return point

    def propose(self, point, proposal, share):
        side = min(max(round((share * self.height * self.width) ** 0.5), 1), self.height, self.width)
        top, left = self.draws.corner(3 * proposal, side, self.height, self.width)
        signs = self.draws.bits(3 * proposal + 2, self.channels)
        candidate = dict(point)
        for c in range(self.channels):
            for row in range(top, top + side):
                for column in range(left, left + side):
                    self.stepped(candidate, (c, row, column), 2 * self.eps * signs[c])
        return None if candidate == point else candidate


class SlowBumps(Slow):
    """L2 and L1 alike: `norm` tells them apart. Points are the images plus float64 offsets, never rounded."""

    def size(self, entries):
        return sum(abs(entry) ** self.norm for entry in entries) ** (1 / self.norm)

    def hill(self, height, width):
        hill = [[0.0] * width for _ in range(height)]
        for k in range(max(height // 2, width // 2) + 1):
            for row in range(max(height // 2 - k, 0), min(height // 2 + k + 1, height)):
                for column in range(max(width // 2 - k, 0), min(width // 2 + k + 1, width)):
                    hill[row][column] += 1 / (k + 1) ** (2 if self.norm == 2 else 4)
        length = self.size(entry for row in hill for entry in row)
        return [[entry / length for entry in row] for row in hill]

    def eta(self, side, turned):
        both = self.hill(side // 2, side) + [[-entry for entry in row] for row in self.hill(side - side // 2, side)]
        length = self.size(entry for row in both for entry in row)
        return [[both[j][i] / length if turned else both[i][j] / length for j in range(side)] for i in range(side)]

    def start(self):
        side = min(self.height, self.width) // 5
        first = (min(self.height, self.width) - 5 * side) // 2
        corners = [
            (first + side * i, first + side * j) for i in range(self.height // side) for j in range(self.width // side)
        ]
        signs = self.draws.signs("square/start", len(corners) * self.channels)
        turns = self.draws.signs("square/start-orientation", len(corners))
        delta = torch.zeros(self.image.shape, dtype=torch.float64)
        for tile, (top, left) in enumerate(corners):
            eta = self.eta(side, turns[tile] > 0)
            for c in range(self.channels):
                for i in range(min(side, self.height - top)):
                    for j in range(min(side, self.width - left)):
                        delta[c, top + i, left + j] = signs[tile * self.channels + c] * eta[i][j]
        return self.landed(delta)

    def propose(self, point, proposal, share):
        side = max(round((share * self.height * self.width) ** 0.5), 3)
        side = min(side + 1 - side % 2, self.height, self.width)
        block = 6 * proposal
        top1, left1 = self.draws.corner(block, side, self.height, self.width)
        top2, left2 = self.draws.corner(block + 2, side, self.height, self.width)
        signs, turned = self.draws.bits(block + 4, self.channels), self.draws.block(block + 5)[0] >> 31 == 1
        window1 = {(top1 + i, left1 + j) for i in range(side) for j in range(side)}
        window2 = {(top2 + i, left2 + j) for i in range(side) for j in range(side)}
        result, eta = point - self.image.double(), self.eta(side, turned)
        whole = self.size(result.flatten().tolist())
        delta = result.tolist()
        for c in range(self.channels):
            of_windows = self.size(delta[c][row][column] for row, column in window1 | window2)
            of_first = self.size(delta[c][row][column] for row, column in window1)
            new = [
                [eta[i][j] * signs[c] + delta[c][top1 + i][left1 + j] / (1e-12 + of_first) for j in range(side)]
                for i in range(side)
            ]
            length = self.size(entry for row in new for entry in row)
            assert length > 1e-4, "bump and rest cancel out, so that rounding decides: choose another seed"
            free = max(self.eps**self.norm - whole**self.norm, 0) / self.channels
            wanted = (free + of_windows**self.norm) ** (1 / self.norm) * (self.channels if self.norm == 1 else 1)
            for row, column in window2:
                result[c, row, column] = 0
            for i in range(side):
                for j in range(side):
                    result[c, top1 + i, left1 + j] = new[i][j] / length * wanted
        return self.landed(result)


class SlowL2(SlowBumps):
    norm = 2

    def landed(self, delta):
        return (self.image.double() + self.eps * delta / self.size(delta.flatten().tolist())).clamp(0, 1)


class SlowL1(SlowBumps):
    norm = 1

    def landed(self, delta):
        """The projection onto ball and box by plain bisection."""
        image = self.image.double()
        room = torch.where(delta > 0, 1 - image, image)
        low, high = 0.0, float(delta.abs().max())
        shrunk = lambda cut: torch.minimum((delta.abs() - cut).clamp(min=0), room)  # noqa: E731
        if float(shrunk(0.0).sum()) > self.eps * (1 - 1e-6):
            for _ in range(100):
                middle = (low + high) / 2
                low, high = (middle, high) if float(shrunk(middle).sum()) > self.eps * (1 - 1e-6) else (low, middle)
        else:
            high = 0.0
        return image + shrunk(high) * delta.sign()


SLOW = {"Linf": SlowLinf, "L2": SlowL2, "L1": SlowL1}
SHAPES = [(2, 11, 8), (1, 9, 13)]


def images_of(shape, count=6):
    generator = torch.Generator().manual_seed(1)
    return (1.3 * torch.rand(count, *shape, generator=generator) - 0.15).clamp(0, 1)  # some pixels are saturated


def model_of(rows, shape):
    """Three classes whose boundaries run among the images."""
    inner = rows(shape)
    with torch.no_grad():
        centre = inner(images_of(shape).double().mean(dim=0, keepdim=True))
    return lambda images: inner(images) - centre


def compared(model, shape, threat, queries, loss=margin, rescale=False):
    images, ids = images_of(shape), torch.tensor([7, 0, 3, 2**33, 12, 1])
    logits = model(images)
    labels = logits.argmax(dim=1) if loss is margin else logits.argmin(dim=1)
    eps = [threat.eps * (1 + 0.2 * (row % 3)) for row in range(len(images))]
    attack = Square(threat=type(threat)(eps=eps), queries=queries, loss=loss, rescale_schedule=rescale)
    found = attack(model, images, labels, random=ImageRandom(SEED, ids))
    slow = SLOW[threat.name]
    for row in range(len(images)):
        search = slow(
            model, images[row], int(labels[row]), int(ids[row]), eps[row], queries, rescale, target=loss is not margin
        )
        expected = search.run()
        tolerance = {"atol": 0, "rtol": 0} if threat.name == "Linf" else {"atol": 2e-6, "rtol": 0}
        torch.testing.assert_close(found[row].double(), expected.double(), **tolerance)
    with torch.no_grad():
        won = model(found).argmax(dim=1) != labels if loss is margin else model(found).argmax(dim=1) == labels
    return int(won.sum())


NEAR = {"Linf": Linf(eps=0.03), "L2": L2(eps=0.25), "L1": L1(eps=0.8)}
each_norm = pytest.mark.parametrize("norm", SLOW)


@each_norm
@pytest.mark.parametrize(("shape", "queries"), [(SHAPES[0], 1), (SHAPES[1], 12), (SHAPES[0], 60), (SHAPES[1], 60)])
def test_the_points_are_those_of_the_paper_image_by_image(rows, norm, shape, queries):
    won = compared(model_of(rows, shape), shape, NEAR[norm], queries)
    assert won < 6  # some searches went on to the end


@each_norm
def test_windows_of_all_sizes(rows, norm):
    """All ten phases in 40 proposals."""
    compared(model_of(rows, SHAPES[0]), SHAPES[0], NEAR[norm], 40, rescale=True)


@each_norm
def test_towards_targets(rows, norm):
    """The largest other logit minus that of the target falls, and only the target counts."""
    compared(model_of(rows, SHAPES[0]), SHAPES[0], NEAR[norm], 30, loss=targeted(margin))


def test_the_forward_passes_are_those_that_change_something(rows):
    """One for the start, one for every proposal that changes a pixel, and one that finds out that none is left."""
    shape = (1, 4, 3)
    model, images = model_of(rows, shape), images_of(shape)
    images[:, :, :, :2] = images[:, :, :, :2].round()
    labels = model(images).argmax(dim=1)
    passed_over = 0
    for row in range(6):
        seen = []

        def spy(points, seen=seen):
            seen.extend(points)
            return model(points)

        search = SlowLinf(model, images[row], int(labels[row]), row, 1e-3, 70)
        random = ImageRandom(SEED, torch.tensor([row]))
        found = Square(threat=Linf(eps=1e-3), queries=70)(
            spy, images[row : row + 1], labels[row : row + 1], random=random
        )
        torch.testing.assert_close(found[0], search.run(), rtol=0, atol=0)
        assert search.forwards <= len(seen) - 1 <= search.forwards + 1
        passed_over += 71 - search.forwards
    assert passed_over > 60


def test_the_fraction_after_5000_proposals_is_that_of_the_paper():
    assert [fraction(it, 5000, False) for it in (0, 10, 11, 50, 51, 4999)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.8 / 128]
    assert math.isclose(fraction(4999, 5000, True), 0.8 / 512)
