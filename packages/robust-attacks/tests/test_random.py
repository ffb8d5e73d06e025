import hashlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_attacks import ImageRandom, _host
from robust_attacks import random as module
from robust_attacks.philox import philox
from robust_attacks.random import below, key_of

P = 1e-6  # how unlikely a result must be before a statistical test fails; seeds are fixed
SIGMAS = 4.892  # a normal number is farther out than this with probability P
KOLMOGOROV = math.sqrt(math.log(2 / P) / 2)  # of sqrt(n) times the largest gap between two distribution functions
MANY = ImageRandom(2024, torch.arange(1024))

DRAWS = {
    "words": lambda random, count, start=0, **other: random.words("test/a", count, start, **other),
    "uniform": lambda random, count, start=0, **other: random.uniform("test/a", (count,), start, **other),
    "uniform64": lambda random, count, start=0, **other: random.uniform(
        "test/a", (count,), start, dtype=torch.float64, **other
    ),
    "normal": lambda random, count, start=0, **other: random.normal("test/a", (count,), start, **other),
    "exponential": lambda random, count, start=0, **other: random.exponential("test/a", (count,), start, **other),
    "signs": lambda random, count, start=0, **other: random.signs("test/a", (count,), start, **other),
    "integers": lambda random, count, start=0, **other: random.integers("test/a", 10, count, start, **other),
}
each_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())


def chi_square_p(counts, expected):
    statistic = ((counts.double() - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2).double(), statistic / 2))


def largest_gap(numbers, distribution):
    ordered = numbers.flatten().double().sort().values
    steps = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    values = distribution(ordered)
    gap = torch.maximum((values - steps[:-1]).abs().max(), (values - steps[1:]).abs().max())
    return float(gap) * math.sqrt(len(ordered))


def correlation_sigmas(a, b):
    a, b = (numbers.flatten().double() - numbers.double().mean() for numbers in (a, b))
    return float((a * b).mean() / (a.std() * b.std())) * math.sqrt(len(a))


def test_key_and_counter_are_built_as_documented():
    seed, use, restart, target, number = 12, "pgd/start", 3, 2, (5 << 32) + 7
    digest = hashlib.sha256(b"robust-attacks/1|12|pgd/start").digest()[:8]
    both = int.from_bytes(digest, "little")
    assert key_of(seed, use) == (both & 0xFFFFFFFF, both >> 32)
    block = [torch.tensor([word]) for word in (9, 3 + 256 * 2, 7, 5)]
    expected = torch.stack(philox(block, key_of(seed, use)), dim=1)
    words = ImageRandom(seed, torch.tensor([number])).words(use, 4, start=36, restart=restart, target=target)
    assert torch.equal(words, expected)


def test_words_equal_a_plain_integer_implementation():
    def plain(c, k):
        c, k = list(c), list(k)
        for _ in range(10):
            p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(q >> 32) ^ c[1] ^ k[0], q & 0xFFFFFFFF, (p >> 32) ^ c[3] ^ k[1], p & 0xFFFFFFFF]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        return c

    ids = [0, 1, 2**32 - 1, 2**32, 2**63 - 1]
    expected = [[w for block in range(3) for w in plain((block, 0, i % 2**32, i >> 32), key_of(7, "u"))] for i in ids]
    assert ImageRandom(7, torch.tensor(ids)).words("u", 12).tolist() == expected


@each_draw
@given(data=st.data())
def test_an_image_draws_the_same_in_any_company(draw, data):
    ids = torch.tensor(data.draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=9)))
    order = torch.tensor(data.draw(st.permutations(range(len(ids)))))
    part = data.draw(st.integers(0, len(ids)))
    random = ImageRandom(5, ids)
    numbers = draw(random, 70)
    assert torch.equal(draw(random[order], 70), numbers[order])
    assert torch.equal(torch.cat((draw(random[:part], 70), draw(random[part:], 70))), numbers)
    padded = ImageRandom(5, torch.cat((torch.tensor([3, 4]), ids)))
    assert torch.equal(draw(padded, 70)[2:], numbers)


@each_draw
@given(start=st.integers(0, 200), count=st.integers(0, 100))
def test_draws_are_numbered(draw, start, count):
    random = ImageRandom(1, torch.arange(3))
    assert torch.equal(draw(random, count, start), draw(random, start + count)[:, start:])


@each_draw
@given(data=st.data())
def test_every_image_may_start_at_a_draw_of_its_own(draw, data):
    count = data.draw(st.integers(0, 40))
    starts = data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=5))
    random = ImageRandom(1, torch.arange(len(starts)))
    numbers = draw(random, count, torch.tensor(starts))
    for row, start in enumerate(starts):
        assert torch.equal(numbers[row : row + 1], draw(random[row : row + 1], count, start))


@each_draw
def test_starts_of_their_own_may_lie_far_out(draw):
    far = torch.tensor([2**30 + 1, 5])
    random = ImageRandom(1, torch.arange(2))
    assert torch.equal(draw(random, 9, far)[:1], draw(random[:1], 9, 2**30 + 1))


@each_draw
def test_chunks_do_not_show(draw, monkeypatch):
    random = ImageRandom(1, torch.arange(10))
    whole = draw(random, 99, 5)
    for chunk in (1, 7, 64, 1000):
        monkeypatch.setattr(module, "_CHUNK", chunk)
        assert torch.equal(draw(random, 99, 5), whole)
        assert torch.equal(draw(random, 99, torch.full((10,), 5)), whole)
    monkeypatch.setattr(_host, "can_look", lambda tensor: False)
    for chunk in (7, 1000):
        monkeypatch.setattr(module, "_DEVICE_CHUNK", chunk)
        monkeypatch.setattr(module, "_CHUNK", None)
        assert torch.equal(draw(random, 99, 5), whole)


@each_draw
def test_seed_use_restart_and_target_name_streams_of_their_own(draw):
    ids = torch.arange(8)
    streams = [draw(ImageRandom(seed, ids), 64) for seed in (0, 1, -1, 2**70)]
    streams += [draw(ImageRandom(0, ids), 64, restart=1), draw(ImageRandom(0, ids), 64, target=1)]
    for one in range(len(streams)):
        for two in range(one):
            assert not torch.equal(streams[one], streams[two])


@pytest.mark.parametrize("along", ["draws", "ids"])
def test_every_byte_is_uniform(along):
    random = ImageRandom(3, torch.arange(4 if along == "draws" else 2**18))
    words = random.words("test/bytes", 2**18 if along == "draws" else 4)
    for shift in (0, 8, 16, 24):
        counts = ((words >> shift) & 255).flatten().bincount(minlength=256)
        assert P < chi_square_p(counts, words.numel() / 256) < 1 - P


def test_uniforms_are_uniform():
    uniform = MANY.uniform("test/uniform", (1024,))
    assert uniform.dtype == torch.float32
    assert 0 <= float(uniform.min()) < 1e-4
    assert 1 - 1e-4 < float(uniform.max()) < 1
    assert torch.equal(uniform, (MANY.words("test/uniform", 1024) >> 8).float() / 2**24)
    assert largest_gap(uniform, lambda x: x) < KOLMOGOROV


def test_uniforms_of_double_precision_use_both_words():
    uniform = MANY.uniform("test/uniform", (256,), dtype=torch.float64)
    words = MANY.words("test/uniform", 512)
    expected = ((words[:, ::2] >> 5).double() * 2**26 + (words[:, 1::2] >> 6).double()) / 2**53
    assert torch.equal(uniform, expected)
    assert largest_gap(uniform, lambda x: x) < KOLMOGOROV


def test_normals_are_normal():
    normal = ImageRandom(2024, torch.arange(4096)).normal("test/normal", (1024,))
    assert largest_gap(normal[:1024], torch.special.ndtr) < KOLMOGOROV
    expected = normal.numel() * math.erfc(4 / math.sqrt(2))
    assert abs(int((normal.abs() > 4).sum()) - expected) < SIGMAS * math.sqrt(expected)
    assert float(normal.abs().max()) <= 6.8
    assert abs(correlation_sigmas(normal[:, ::2], normal[:, 1::2])) < SIGMAS  # the two that share their words
    assert abs(correlation_sigmas(normal[:, ::2] ** 2, normal[:, 1::2] ** 2)) < SIGMAS


def test_exponentials_are_exponential():
    numbers = MANY.exponential("test/exponential", (1024,))
    assert float(numbers.min()) > 0
    assert largest_gap(numbers, lambda x: -torch.expm1(-x)) < KOLMOGOROV


def test_signs_are_the_bits_from_the_top():
    signs = MANY.signs("test/signs", (4, 8), dtype=torch.float64)
    words = MANY.words("test/signs", 1)
    for place in range(32):
        assert torch.equal(signs.flatten(1)[:, place] > 0, (words[:, 0] >> (31 - place)) & 1 == 1)
    assert signs.dtype == torch.float64
    total = MANY.signs("test/signs", (1024,)).sum()
    assert abs(float(total)) < SIGMAS * 1024


@pytest.mark.parametrize("n", [1, 2, 7, 10, 1000])
def test_integers_are_uniform(n):
    numbers = MANY.integers("test/integers", n, 256)
    assert numbers.dtype == torch.int64
    counts = numbers.flatten().bincount(minlength=n)
    assert len(counts) == n
    assert n == 1 or P < chi_square_p(counts, numbers.numel() / n) < 1 - P


@pytest.mark.parametrize("n", [10, 3 * 2**29, 2**31 - 1])
def test_integers_take_the_first_accepted_of_four_words(n):
    """At 3 * 2^29 a quarter of the words is rejected, and one draw in 256 uses the last word whatever it is."""
    random = ImageRandom(0, torch.arange(4))
    words = random.words("test/integers", 4 * 500).reshape(4, 500, 4).tolist()
    expected = [
        [next((w for w in four if w * n % 2**32 >= 2**32 % n), four[3]) * n // 2**32 for four in row] for row in words
    ]
    assert random.integers("test/integers", n, 500).tolist() == expected


def test_integers_below_a_bound_of_their_own():
    words = ImageRandom(0, torch.arange(3)).words("test/below", 4 * 50).reshape(3, 50, 4)
    bounds = torch.arange(1, 151).reshape(3, 50)
    expected = [
        [int(below(int(n), four)) for n, four in zip(*row, strict=True)] for row in zip(bounds, words, strict=True)
    ]
    assert below(bounds, words).tolist() == expected


def test_choices_are_different_and_every_order_is_as_likely():
    chosen = ImageRandom(0, torch.arange(60_000)).choice("test/choice", 5, 3)
    assert chosen.shape == (60_000, 3)
    ordered = chosen.sort(dim=1).values
    assert bool((ordered[:, 1:] > ordered[:, :-1]).all())
    counts = (chosen * torch.tensor([25, 5, 1])).sum(dim=1).bincount(minlength=125)
    assert int((counts > 0).sum()) == 60
    assert P < chi_square_p(counts[counts > 0], 1000) < 1 - P


def test_a_choice_of_all_is_a_permutation():
    chosen = ImageRandom(0, torch.arange(10)).choice("test/choice", 6, 6)
    assert torch.equal(chosen.sort(dim=1).values, torch.arange(6).expand(10, 6))


@pytest.mark.parametrize("shift", [0, 16], ids=["low bits", "high bits"])
def test_neighbours_are_uncorrelated(shift):
    def half(words):
        return (words >> shift) & 0xFFFF

    ids = torch.arange(1024)
    words = half(ImageRandom(0, ids).words("test/a", 1024))
    neighbours = {
        "draws": (words[:, :-1], words[:, 1:]),
        "ids": (words[:-1], words[1:]),
        "high ids": (words, half(ImageRandom(0, ids + 2**32).words("test/a", 1024))),
        "restarts": (words, half(ImageRandom(0, ids).words("test/a", 1024, restart=1))),
        "targets": (words, half(ImageRandom(0, ids).words("test/a", 1024, target=1))),
        "seeds": (words, half(ImageRandom(1, ids).words("test/a", 1024))),
        "uses": (words, half(ImageRandom(0, ids).words("test/b", 1024))),
    }
    far = {name: sigmas for name, pair in neighbours.items() if abs(sigmas := correlation_sigmas(*pair)) > SIGMAS}
    assert not far


def test_one_bit_of_the_seed_flips_half_of_the_output():
    seeds = range(2000)
    bits = torch.arange(32)
    shares = []
    for bit in (0, 1, 7, 31, 40):
        keys = torch.tensor([key_of(seed, "test/a") + key_of(seed ^ (1 << bit), "test/a") for seed in seeds]).T
        zero = torch.zeros(len(seeds), dtype=torch.int64)
        one, two = (torch.stack(philox((zero, zero, zero, zero), tuple(keys[i : i + 2]))) for i in (0, 2))
        shares.append((((one ^ two)[..., None] >> bits) & 1).double().mean())
    assert float((torch.stack(shares) - 0.5).abs().max()) < 0.01


def test_no_pair_of_words_repeats():
    words = ImageRandom(0, torch.arange(2048)).words("test/pairs", 4096)
    pairs = (words[:, ::2] << 32 | words[:, 1::2]).flatten()
    assert len(pairs) == 2**22
    ordered = pairs.sort().values
    assert not bool((ordered[1:] == ordered[:-1]).any())


def test_keys_are_the_first_two_words():
    words = MANY.words("test/keys", 2)
    assert torch.equal(MANY.keys("test/keys") & 0xFFFFFFFF, words[:, 0])
    assert torch.equal((MANY.keys("test/keys") >> 32) & 0xFFFFFFFF, words[:, 1])


def test_it_is_a_value():
    ids = torch.arange(3)
    random = ImageRandom(seed=4, ids=ids)
    ids[0] = 99
    assert random == ImageRandom(4, torch.arange(3))
    assert hash(random) == hash(ImageRandom(4, torch.arange(3)))
    assert random != ImageRandom(5, torch.arange(3))
    assert random != ImageRandom(4, torch.arange(4))
    assert random != ImageRandom(4)
    assert random != "random"
    assert random[torch.tensor([True, False, True])] == ImageRandom(4, torch.tensor([0, 2]))
    assert random[1:] == ImageRandom(4, torch.tensor([1, 2]))
    assert len(random) == 3
    assert "seed=4" in repr(random)


def test_ids_are_those_of_the_call_unless_given():
    images = torch.zeros(3, 1, 2, 2)
    assert ImageRandom(4).of(images) == ImageRandom(4, torch.arange(3))
    assert ImageRandom(4, torch.tensor([7, 7, 1])).of(images) == ImageRandom(4, torch.tensor([7, 7, 1]))
    with pytest.raises(ValueError, match="ids of 2 images, but 3 images"):
        ImageRandom(4, torch.arange(2)).of(images)
    with pytest.raises(ValueError, match="has no ids yet"):
        ImageRandom(4).words("test/a", 1)


def test_equal_ids_draw_equal_numbers():
    words = ImageRandom(0, torch.tensor([5, 5])).words("test/a", 8)
    assert torch.equal(words[0], words[1])


def test_fresh_draws_one_seed_from_the_cpu_generator_and_nothing_else():
    torch.manual_seed(0)
    first, second = ImageRandom.fresh(3), ImageRandom.fresh(3)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    seeds = [int(torch.randint(2**63 - 1, ())) for _ in range(2)]
    assert torch.equal(after, torch.get_rng_state())
    assert [first.seed, second.seed] == seeds
    assert first == ImageRandom(seeds[0], torch.arange(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ImageRandom("1"), TypeError, "seed must be an int, got '1'"),
        (lambda: ImageRandom(True), TypeError, "seed must be an int, got True"),
        (lambda: ImageRandom(0, torch.tensor([0, -3])), ValueError, "not be negative, got -3"),
        (lambda: ImageRandom(0, torch.tensor([0.5])), TypeError, "ids must be int64 image numbers, got torch.float32"),
        (lambda: ImageRandom(0, torch.zeros(2, 2, dtype=torch.int64)), ValueError, r"shape \(N,\).*got \(2, 2\)"),
        (lambda: MANY.words("a", 1, restart=256), ValueError, "restart must be in 0..255"),
        (lambda: MANY.words("a", 1, target=-1), ValueError, "target in 0..2"),
        (lambda: MANY.words("a", -1), ValueError, "draws must lie in"),
        (lambda: MANY.words("a", 1, start=2**34), ValueError, "draws must lie in"),
        (
            lambda: MANY.words("a", 1, torch.zeros(3, dtype=torch.int64)),
            ValueError,
            r"shape \(1024,\).* of shape \(3,\)",
        ),
        (lambda: MANY.words("a", 1, torch.zeros(1024)), ValueError, "one int64 per image.*got torch.float32"),
        (lambda: MANY.integers("a", 0, 1), ValueError, "n must be in 1..2"),
        (lambda: MANY.choice("a", 3, 4), ValueError, "cannot choose 4 of 3"),
        (lambda: MANY.normal("a", (1,), dtype=torch.float16), TypeError, "float32 or torch.float64, got torch.float16"),
        (lambda: MANY.uniform("a", (1,), dtype=torch.float16), TypeError, "float32 or torch.float64, got"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.gpu
@each_draw
def test_the_gpu_draws_the_same(draw):
    ids = torch.arange(300) * 12345
    here, there = draw(ImageRandom(3, ids), 500), draw(ImageRandom(3, ids.cuda()), 500)
    assert there.device.type == "cuda"
    if here.dtype == torch.float32 and not torch.equal(here, here.sign()):
        # normals and exponentials: logarithms and cosines may differ in the last bit, for few draws; uniforms never do
        torch.testing.assert_close(there.cpu(), here, rtol=3e-7, atol=1e-12)
        assert float((there.cpu() != here).double().mean()) < 1e-4
    else:
        assert torch.equal(there.cpu(), here)


@pytest.mark.gpu
def test_streams_of_known_ids_are_made_and_drawn_from_without_waiting_for_the_device():
    random = ImageRandom(3, torch.arange(300).cuda())
    index, images = torch.arange(0, 300, 2).cuda(), torch.zeros(150, 1, 1, 1).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        words = random[index].of(images).words("test/a", 12, start=4 * index)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    there = ImageRandom(3, torch.arange(0, 300, 2)).words("test/a", 12, start=4 * torch.arange(0, 300, 2))
    assert torch.equal(words.cpu(), there)


@pytest.mark.gpu
def test_the_gpu_draws_the_same_uniforms_choices_and_keys():
    ids = torch.arange(300)
    here, there = ImageRandom(3, ids), ImageRandom(3, ids.cuda())
    assert torch.equal(there.uniform("test/a", (500,)).cpu(), here.uniform("test/a", (500,)))
    assert torch.equal(there.choice("test/a", 50, 9).cpu(), here.choice("test/a", 50, 9))
    assert torch.equal(there.keys("test/a").cpu(), here.keys("test/a"))
