"""The pool: a full batch, the lowest run that wins, the same result where the host must not look."""

import pytest
import torch
from robust_attacks import L1, L2, ImageRandom, Linf, WorstCase, _host, margin
from robust_attacks._ledger import Ledger
from robust_attacks._passes import Passes
from robust_attacks._pool import Given, hunt
from robust_attacks._verify import Judge
from robust_attacks.apgd import APGD
from robust_attacks.fab import FAB
from robust_attacks.square import Square
from torch.utils._python_dispatch import TorchDispatchMode

THREATS = [Linf(eps=0.02), L2(eps=0.15), L1(eps=0.6)]
CPU = torch.device("cpu")


class Runs:
    """Run r of the image with pixel value v wins at look `wins[v][r]`; the points tell run and look."""

    def __init__(self, wins, length):
        self.wins, self.runs, self.length = torch.tensor(wins), len(wins[0]), length
        self.sizes = []

    def start(self, jobs):
        value = (jobs.images[:, 0, 0, 0] * 10).round().long()
        return {
            "labels": jobs.labels,
            "points": jobs.images.clone(),
            "images": jobs.images.clone(),
            "at": self.wins[value, jobs.run],
            "run": torch.full_like(value, jobs.run),
        }

    def look(self, passes, state):
        self.sizes.append(len(state["points"]))
        passes.logits(state["points"])
        return state["at"] == state["age"] + 1

    def move(self, state):
        tell = 1e-3 * (state["run"] + 1) + 1e-5 * state["age"]
        state["points"] = state["images"] + tell[:, None, None, None]

    def best(self, state):
        return state["points"], state["run"].double()


def hunted(wins, length, batch_size, keep_best=False):
    images = (torch.arange(len(wins)) / 10).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    labels = torch.zeros(len(wins), dtype=torch.int64)
    model = lambda x: torch.stack((-1 - x.sum(dim=(1, 2, 3)), 0 * x[:, 0, 0, 0]), dim=1)  # noqa: E731  # always wrong
    search, passes = Runs(wins, length), Passes(model)
    given = Given(images, labels, model(images), ImageRandom(0).of(images), Linf(eps=0.1), CPU)
    ledger = Ledger.of(images.clone(), search.runs, keep_best)
    hunt(search, passes, Judge(passes, margin), given, ledger, torch.arange(len(wins)), batch_size)
    return ledger, search, images


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_the_lowest_run_that_wins_is_kept(batch_size):
    never = 99
    wins = [[never, 2, 1], [1, 1, 1], [never] * 3, [4, 1, never], [never, never, 4]]
    ledger, _, images = hunted(wins, 5, batch_size)
    assert ledger.winner.tolist() == [1, 0, 3, 0, 2]
    moved = (ledger.adversarial - images)[:, 0, 0, 0]
    expected = [2e-3 + 1e-5, 0, 0, 1e-3 + 3e-5, 3e-3 + 3e-5]
    torch.testing.assert_close(moved, torch.tensor(expected), rtol=0, atol=1e-7)


def test_the_highest_score_of_exhausted_runs_is_kept():
    ledger, _, images = hunted([[99, 99, 99]] * 2, 4, 2, keep_best=True)
    assert ledger.leader.tolist() == [2, 2]
    moved = (ledger.adversarial - images)[:, 0, 0, 0]
    torch.testing.assert_close(moved, torch.full((2,), 3e-3 + 3e-5), rtol=0, atol=1e-7)
    assert ledger.finished.all()


def test_the_batch_stays_full_while_jobs_wait():
    wins = [[1 + row % 5, 99] for row in range(10)]
    _, search, _ = hunted(wins, 7, 4)
    waiting = 10 - 4
    for size in search.sizes[: waiting // 2]:
        assert size == 4
    assert sum(search.sizes) <= sum(at for at, _ in wins) + 7 * 2  # a few second runs start before the first has won


def test_runs_after_a_win_do_not_start():
    _, search, _ = hunted([[1, 99, 99]] * 6, 50, 6)
    assert search.sizes == [6]


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
@pytest.mark.parametrize("kind", ["apgd-ce", "apgd-t", "fab-t", "square"])
def test_results_are_the_same_where_the_host_must_not_look(rows, monkeypatch, threat, kind):
    images = 0.3 + 0.4 * torch.rand(9, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = rows((1, 6, 6))
    labels = model(images).argmax(dim=1)
    attack = {
        "apgd-ce": APGD(threat=threat, steps=20),
        "apgd-t": APGD(threat=threat, steps=11, targets=2),
        "fab-t": FAB(threat=threat, steps=10, targets=2),
        "square": Square(threat=threat, queries=40),
    }[kind]
    expected = attack(model, images, labels, random=ImageRandom(0))
    monkeypatch.setattr(_host, "can_look", lambda tensor: False)
    adversarial = attack(model, images, labels, random=ImageRandom(0))
    assert torch.equal(model(adversarial).argmax(dim=1), model(expected).argmax(dim=1))
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
@pytest.mark.parametrize("kind", ["apgd-ce", "apgd-t", "fab", "square"])
def test_waiting_images_take_free_places_whatever_the_precision(rows, threat, kind, dtype):
    """Logits, and with them losses, may be of another precision than the images."""
    images = 0.3 + 0.4 * torch.rand(9, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    inner = rows((1, 6, 6))
    model = lambda x: inner(x).to(dtype)  # noqa: E731
    labels = model(images).argmax(dim=1)
    attack = {
        "apgd-ce": APGD(threat=threat, steps=5, restarts=2),
        "apgd-t": APGD(threat=threat, steps=5, targets=2),
        "fab": FAB(threat=threat, steps=3, restarts=2),
        "square": Square(threat=threat, queries=12),
    }[kind]
    for given in (images, images.double()):
        whole = WorstCase([attack]).run(model, given, labels)
        assert torch.equal(WorstCase([attack]).run(model, given, labels, batch_size=4).adversarial, whole.adversarial)


def test_a_first_win_that_does_not_stand_hides_no_later_one(monkeypatch):
    """Where the host looks only now and then, the latest win of the time between is tried as well."""

    class Crossing(Runs):
        def look(self, passes, state):
            passes.logits(state["points"])
            return state["age"] >= 2

    images, labels = torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64)

    def model(x):
        """Sees the boundary three steps later than the search does."""
        value = x[:, 0, 0, 0].double()
        return torch.stack((1e-3 + 4.5e-5 - value, 0 * value), dim=1)

    search, passes = Crossing([[99]], 7), Passes(model)
    given = Given(images, labels, model(images), ImageRandom(0).of(images), Linf(eps=0.1), CPU)
    ledger = Ledger.of(images.clone(), 1, False)
    monkeypatch.setattr(_host, "can_look", lambda tensor: False)
    hunt(search, passes, Judge(passes, margin), given, ledger, torch.arange(1), 1)
    assert ledger.winner.tolist() == [0]


class NoWaiting(TorchDispatchMode):
    """Refuses every operation for which a host would have to wait for a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim"):
            raise AssertionError(f"{name} would make the host wait")
        if name in ("index", "index_put", "index_put_"):
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            assert not masks, "a boolean index would make the host wait"
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
@pytest.mark.parametrize("kind", ["apgd-ce", "apgd-t", "fab", "fab-t", "square"])
def test_no_search_makes_the_host_wait(rows, monkeypatch, threat, kind):
    images = 0.3 + 0.4 * torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    model = rows((2, 6, 6))
    labels = model(images).argmax(dim=1)
    attack = {
        "apgd-ce": APGD(threat=threat, steps=9),
        "apgd-t": APGD(threat=threat, steps=9, targets=2),
        "fab": FAB(threat=threat, steps=4, restarts=1),
        "fab-t": FAB(threat=threat, steps=4, targets=1),
        "square": Square(threat=threat, queries=9),
    }[kind]
    search = attack.search(3, 0)
    passes = Passes(model)
    jobs = Given(images, labels, model(images).detach(), ImageRandom(0).of(images), threat, CPU).jobs(torch.arange(3))
    state = search.start(jobs)
    state["age"] = torch.zeros(3, dtype=torch.int64)
    monkeypatch.setattr(_host, "can_look", lambda tensor: False)
    with NoWaiting():
        for _ in range(search.length):
            search.look(passes, state)
            state["age"] += 1
            search.move(state)
    assert bool(state["points"].isfinite().all())


def test_the_guard_of_the_test_above_bites():
    with NoWaiting(), pytest.raises(AssertionError, match="would make the host wait"):
        bool(torch.ones(1).any())
    with NoWaiting(), pytest.raises(AssertionError, match="boolean index"):
        torch.ones(3)[torch.tensor([True, False, True])]


@pytest.mark.gpu
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
@pytest.mark.parametrize("kind", ["apgd-ce", "fab-t", "square"])
def test_no_search_makes_the_host_wait_for_a_gpu(rows, threat, kind):
    images = 0.3 + 0.4 * torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0)).cuda()
    model = rows((2, 6, 6)).cuda()
    labels = model(images).argmax(dim=1)
    attack = {
        "apgd-ce": APGD(threat=threat, steps=9),
        "fab-t": FAB(threat=threat, steps=4, targets=1),
        "square": Square(threat=threat, queries=9),
    }[kind]
    search, passes, device = attack.search(3, 0), Passes(model), images.device
    random = ImageRandom(0).of(images)
    state = search.start(Given(images, labels, model(images).detach(), random, threat, device).jobs(torch.arange(3)))
    state["age"] = torch.zeros(3, dtype=torch.int64, device=device)
    for _ in range(2):  # the first round may load kernels and tables
        search.look(passes, state)
        state["age"] += 1
        search.move(state)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        search.look(passes, state)
        state["age"] += 1
        search.move(state)
    finally:
        torch.cuda.set_sync_debug_mode(before)
