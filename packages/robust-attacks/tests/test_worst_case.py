"""The worst case over attacks: accounts, confirmation, batch invariance, resume."""

from functools import partial

import pytest
import torch
from robust_attacks import FGSM, L2, PGD, ImageRandom, Linf, cross_entropy, targeted
from robust_attacks.apgd import APGD
from robust_attacks.report import Report
from robust_attacks.worst_case import WorstCase

THREAT = Linf(eps=0.01)


class Centred(torch.nn.Module):
    """Three classes whose boundaries run among the images; arithmetic that does not depend on the batch."""

    def __init__(self, inner, images):
        super().__init__()
        self.inner = inner
        with torch.no_grad():
            self.register_buffer("centre", inner(images.double().mean(dim=0, keepdim=True)))

    def forward(self, x):
        return self.inner(x) - self.centre


@pytest.fixture
def images():
    return 0.2 + 0.6 * torch.rand(23, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model(rows, images):
    return Centred(rows(images.shape[1:]), images).eval()


@pytest.fixture
def labels(model, images):
    """True classes, but for three images that are misclassified."""
    labels = model(images).argmax(dim=1)
    labels[::9] = (labels[::9] + 1) % 3
    return labels


@pytest.fixture
def suite():
    return WorstCase([APGD(threat=THREAT, steps=6), APGD(threat=THREAT, steps=12, targets=2), FGSM(threat=THREAT)])


def test_accounts_are_those_of_the_protocol(suite, model, images, labels):
    report = suite.run(model, images, labels)
    clean = model(images).argmax(dim=1) == labels
    assert torch.equal(report.clean, clean)
    assert list(report.stages) == ["apgd-ce", "apgd-t", "fgsm"]
    before = clean
    for mask in report.stages.values():
        assert bool((mask <= before).all())
        before = mask
    assert torch.equal(report.robust, before)
    assert 0 < int(report.robust.sum()) < int(clean.sum())
    verdict = model(report.adversarial).argmax(dim=1) == labels
    assert torch.equal(verdict, report.robust)
    untouched = report.robust | ~clean
    assert torch.equal(report.adversarial[untouched], images[untouched])
    assert bool((THREAT.distance(images, report.adversarial) <= THREAT.eps).all())
    before = clean
    for name, mask in report.stages.items():
        fell = before & ~mask
        assert [who == name for who in report.broken_by] == fell.tolist()
        before = mask
    assert [who == "clean" for who in report.broken_by] == (~clean).tolist()
    assert [who is None for who in report.broken_by] == report.robust.tolist()
    assert report.robust_accuracy == int(report.robust.sum()) / 23
    assert report.clean_accuracy == int(clean.sum()) / 23


def test_a_later_attack_sees_only_survivors_and_clean_images(model, images, labels):
    seen = []

    def spy(given_model, some, theirs, *, random=None):
        seen.append((some.clone(), random.ids.clone()))
        return some

    report = WorstCase([PGD(threat=THREAT, steps=5), spy], threat=THREAT).run(model, images, labels)
    survivors = report.stages["pgd"].nonzero()[:, 0]
    assert list(report.stages) == ["pgd", "spy"]
    assert torch.equal(seen[0][0], images[survivors])
    assert torch.equal(seen[0][1], survivors)


def test_is_an_attack_itself(suite, model, images, labels):
    report = suite.run(model, images, labels)
    assert torch.equal(suite(model, images, labels), report.adversarial)
    assert torch.equal(WorstCase([suite]).run(model, images, labels).robust, report.robust)
    other = suite(model, images, labels, random=ImageRandom(1))
    assert not torch.equal(other, report.adversarial)


@pytest.mark.parametrize("batch_size", [1, 4, 13, 200])
def test_nothing_depends_on_the_batch_size(suite, model, images, labels, batch_size):
    expected, report = suite.run(model, images, labels), suite.run(model, images, labels, batch_size=batch_size)
    assert torch.equal(report.adversarial, expected.adversarial)
    assert report.broken_by == expected.broken_by
    assert all(torch.equal(report.stages[name], expected.stages[name]) for name in expected.stages)


def test_nothing_depends_on_order_or_shards(suite, model, images, labels):
    expected, ids = suite.run(model, images, labels), torch.arange(23)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(5))
    shuffled = suite.run(model, images[order], labels[order], ids[order], batch_size=5)
    assert torch.equal(shuffled.adversarial, expected.adversarial[order])
    shards = [suite.run(model, images[rank::2], labels[rank::2], ids[rank::2], batch_size=7) for rank in range(2)]
    for rank, shard in enumerate(shards):
        assert torch.equal(shard.adversarial, expected.adversarial[rank::2])
        assert shard.broken_by == expected.broken_by[rank::2]


def test_a_second_run_of_the_same_object_is_the_same(suite, model, images, labels):
    first, second = suite.run(model, images, labels), suite.run(model, images, labels)
    assert torch.equal(first.adversarial, second.adversarial)
    assert first.forwards == second.forwards


@pytest.mark.parametrize("shift", [0.011, 0.5, float("nan")], ids=["beyond eps", "outside the box", "nan"])
def test_points_outside_the_threat_are_no_success(model, images, labels, shift):
    """They are brought back inside before they are judged, so a cheat breaks no more than an honest attack could."""

    def cheat(given_model, some, theirs, *, random=None):
        return some + shift

    def honest(given_model, some, theirs, *, random=None):
        return THREAT.project(some, (some + shift).nan_to_num(nan=0.0))

    report = WorstCase([cheat], threat=THREAT).run(model, images, labels)
    assert bool((THREAT.distance(images, report.adversarial) <= THREAT.eps).all())
    assert torch.equal(report.robust, WorstCase([honest], threat=THREAT).run(model, images, labels).robust)


@pytest.mark.parametrize("write", [lambda x, y: x.copy_(1 - x), lambda x, y: y.add_(1).remainder_(3)], ids=["x", "y"])
def test_an_attack_that_writes_into_what_it_was_given_breaks_nothing(model, images, labels, write):
    """Distances and verdicts are measured from the clean images and the true labels."""

    def cheat(given_model, some, theirs, *, random=None):
        write(some, theirs)
        return some

    report = WorstCase([cheat], threat=Linf(eps=1e-6)).run(model, images, labels)
    assert bool((THREAT.distance(images, report.adversarial) <= 1e-6).all())
    assert torch.equal(report.robust, report.clean)


def test_every_attack_keeps_to_its_own_threat(model, images, labels):
    """The threat of the suite says what counts, not what its attacks look for."""
    small = L2(eps=0.05)
    report = WorstCase([APGD(threat=small, steps=20)], threat=Linf(eps=1)).run(model, images, labels)
    alone = WorstCase([APGD(threat=small, steps=20)]).run(model, images, labels)
    assert torch.equal(report.adversarial, alone.adversarial)
    assert 0 < int(report.robust.sum()) < int(report.clean.sum())


@pytest.mark.parametrize("kind", [PGD, APGD])
def test_every_image_may_have_a_radius_of_its_own(model, images, labels, kind):
    eps = torch.linspace(0, 0.03, 23).tolist()
    report = WorstCase([kind(threat=Linf(eps=eps), steps=5)]).run(model, images, labels, batch_size=4)
    for row in (1, 12, 22):
        one = WorstCase([kind(threat=Linf(eps=eps[row]), steps=5)])
        alone = one.run(model, images[row : row + 1], labels[row : row + 1], torch.tensor([row]))
        assert torch.equal(alone.adversarial[0], report.adversarial[row])


def test_the_model_never_sees_an_empty_batch(images):
    class Picky(torch.nn.Module):
        def forward(self, x):
            assert len(x)
            value = x.flatten(1).sum(dim=1)
            return torch.stack((0 * value, value - 24), dim=1)

    labels = Picky()(images).argmax(dim=1)
    suite = WorstCase([PGD(threat=Linf(eps=1.0)), FGSM(threat=Linf(eps=1.0)), APGD(threat=Linf(eps=1.0))])
    assert not suite.run(Picky(), images, labels).robust.any()
    assert suite.run(Picky(), images[:0], labels[:0]).robust.shape == (0,)


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
def test_the_precision_of_the_caller_comes_back(suite, model, images, labels, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        suite.run(model, images[:2], labels[:2])
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_checkpoint_of_another_function_is_refused(suite, model, images, labels, tmp_path):
    """A plain function shows no weights, but other predictions."""
    suite.run(lambda x: model(x), images, labels, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"belongs to another run \(model: it gets other images right\)"):
        suite.run(lambda x: -model(x), images, labels, checkpoint=tmp_path / "run.pt")


def test_points_of_another_precision_are_judged_as_they_are_kept():
    """In float64 the point lies beyond the boundary; in the float32 of the images it does not."""
    model = lambda x: torch.stack((0 * x[:, 0, 0, 0].double(), x[:, 0, 0, 0].double() - 0.5 - 1e-12), dim=1)  # noqa: E731
    attack = lambda given, some, theirs, *, random=None: some.double() + 1e-11  # noqa: E731
    start, label = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    assert WorstCase([attack], threat=Linf(eps=0.1)).run(model, start, label).robust.tolist() == [True]
    assert WorstCase([attack], threat=Linf(eps=0.1)).run(model, start.double(), label).robust.tolist() == [False]


def test_a_success_that_does_not_last_is_not_counted(images, labels):
    """The model says anything else once; the second look finds it right again, and the report tells."""
    calls = [0]

    def moody(x):
        calls[0] += 1
        logits = torch.nn.functional.one_hot(labels[:1].expand(len(x)), 3).float()
        return -logits if calls[0] == 4 else logits + 0 * x.sum()

    report = WorstCase([APGD(threat=THREAT, steps=5)], sanity=False).run(moody, images[:1], labels[:1])
    assert report.robust.tolist() == [True]
    assert report.parts[0].flips == 1
    assert report.forwards["apgd-ce"] == 6 + 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_logits_are_reported_and_never_robust(model, images, labels, bad):
    wild = partial(_spoiled, model, images, bad)
    report = WorstCase([APGD(threat=Linf(eps=1e-6), steps=3)]).run(wild, images, labels)
    assert report.finite.tolist() == [row not in (4, 5) for row in range(23)]
    assert report.broken_by[4] == report.broken_by[5] == "non-finite"
    assert not report.robust[4]
    assert not report.robust[5]
    assert not report.clean[4]
    assert report.clean[5]


def _spoiled(model, images, bad, x):
    """Image 4 has no finite logits; image 5 loses them once it is changed."""
    near = [(x - images[row]).abs().amax(dim=(1, 2, 3)) < 1e-4 for row in (4, 5)]
    spoiled = near[0] | (near[1] & (x != images[5]).flatten(1).any(dim=1))
    return torch.where(spoiled[:, None], bad, model(x))


def test_counts_what_other_attacks_ask_of_the_model(model, images, labels):
    report = WorstCase([PGD(threat=THREAT, steps=4)], sanity=False).run(model, images, labels)
    attacked = int(report.clean.sum())
    assert report.forwards == {"pgd": 4 * attacked + attacked}
    assert report.backwards == {"pgd": 4 * attacked}


def test_survives_json_and_prints(suite, model, images, labels):
    report = suite.run(model, images, labels)
    again = Report.from_json(report.to_json(), report.adversarial)
    assert again == report
    assert torch.equal(again.robust, report.robust)
    lines = str(report).splitlines()
    assert lines[0] == "worst case: Linf, eps 0.01, 23 images, 3 classes, seed 0"
    assert lines[2].split() == ["clean", str(int(report.clean.sum())), f"{report.clean_accuracy:.2%}"]
    assert lines[5].split()[:3] == ["fgsm", str(int(report.robust.sum())), f"{report.robust_accuracy:.2%}"]
    with pytest.raises(ValueError, match="this is no report of robust-attacks"):
        Report.from_json("{}")


def test_tells_how_far_it_is(suite, model, images, labels, monkeypatch):
    monkeypatch.setattr("robust_attacks._evaluation._SECONDS_BETWEEN_REPORTS", 0)
    told = []
    report = suite.run(model, images, labels, progress=told.append)
    assert [progress.stage for progress in told] == sorted((p.stage for p in told), key=list(report.stages).index)
    assert told[-1].robust == int(report.robust.sum())
    assert told[-1].done == told[-1].total
    assert all(progress.done <= progress.total for progress in told)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("calls", [1, 12, 20, 31, 45])
def test_an_interrupted_run_goes_on_to_the_same_result(suite, model, images, labels, tmp_path, calls):
    expected, made = suite.run(model, images, labels), [0]

    def dies(module, given):
        made[0] += 1
        if made[0] % calls == 0:
            raise Stopped

    handle = model.register_forward_pre_hook(dies)
    for _ in range(2):
        with pytest.raises(Stopped):
            suite.run(model, images, labels, batch_size=6, checkpoint=tmp_path / "folder" / "run.pt")
    handle.remove()
    report = suite.run(model, images, labels, batch_size=6, checkpoint=tmp_path / "folder" / "run.pt")
    assert torch.equal(report.adversarial, expected.adversarial)
    assert report.broken_by == expected.broken_by
    assert all(torch.equal(report.stages[name], expected.stages[name]) for name in expected.stages)


def test_what_was_done_before_an_interruption_is_not_done_again(suite, model, images, labels, tmp_path, monkeypatch):
    monkeypatch.setattr("robust_attacks._evaluation._SECONDS_BETWEEN_REPORTS", 0)

    def interrupt(progress):
        if progress.stage == "apgd-t":
            raise Stopped

    with pytest.raises(Stopped):
        suite.run(model, images, labels, checkpoint=tmp_path / "run.pt", progress=interrupt)
    expected = suite.run(model, images, labels)
    report = suite.run(model, images, labels, checkpoint=tmp_path / "run.pt")
    assert report.forwards["apgd-ce"] == expected.forwards["apgd-ce"]
    assert torch.equal(report.adversarial, expected.adversarial)


def test_a_finished_run_is_only_read(suite, model, images, labels, tmp_path):
    first = suite.run(model, images, labels, checkpoint=tmp_path / "run.pt")
    seen = []
    handle = model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    again = suite.run(model, images, labels, checkpoint=tmp_path / "run.pt")
    handle.remove()
    assert again == first
    assert sum(seen) < 23 + 23 * 5 + 23 * 3  # the clean pass and the signs alone


def test_a_checkpoint_of_another_run_is_refused(suite, model, images, labels, tmp_path):
    file = tmp_path / "run.pt"
    suite.run(model, images, labels, checkpoint=file)
    with pytest.raises(ValueError, match=r"belongs to another run \(suite: .*seed"):
        WorstCase(suite.attacks, seed=1).run(model, images, labels, checkpoint=file)
    with pytest.raises(ValueError, match=r"belongs to another run \(images: "):
        suite.run(model, images.flip(3), labels, checkpoint=file)
    with pytest.raises(ValueError, match=r"belongs to another run \(labels: "):
        suite.run(model, images, (labels + 1) % 3, checkpoint=file)
    with pytest.raises(ValueError, match=r"belongs to another run \(ids: "):
        suite.run(model, images, labels, torch.arange(1, 24), checkpoint=file)
    with torch.no_grad():
        model.inner.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(ValueError, match=r"belongs to another run \(model: .*delete it to begin anew"):
        suite.run(model, images, labels, checkpoint=file)


def test_a_torn_checkpoint_is_refused(suite, model, images, labels, tmp_path):
    file = tmp_path / "run.pt"
    suite.run(model, images, labels, checkpoint=file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot be read as a checkpoint .* delete it to begin anew"):
        suite.run(model, images, labels, checkpoint=file)
    torch.save({"format": "something else"}, file)
    with pytest.raises(ValueError, match="is no checkpoint of robust-attacks"):
        suite.run(model, images, labels, checkpoint=file)


def test_the_model_and_the_world_are_left_alone(suite, model, images, labels):
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.no_grad():
        suite.run(model, images, labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


def test_takes_an_empty_set(suite, model, images, labels):
    report = suite.run(model, images[:0], labels[:0])
    assert report.adversarial.shape == (0, 3, 4, 4)
    assert report.broken_by == ()
    assert "0 images" in str(report)


def test_names_stages():
    attacks = [PGD(threat=THREAT), PGD(threat=THREAT, steps=3), APGD(threat=THREAT)]
    assert list(WorstCase(attacks).stages) == ["pgd", "pgd-2", "apgd-ce"]
    assert list(WorstCase({"weak": attacks[1], "strong": attacks[0]}).stages) == ["weak", "strong"]


@pytest.mark.parametrize(
    ("attacks", "settings", "error", "message"),
    [
        ([], {}, ValueError, "at least one attack"),
        (PGD(threat=THREAT), {}, TypeError, "takes several attacks"),
        ([PGD], {}, TypeError, "is no attack: pass objects"),
        ([PGD(threat=THREAT), PGD(threat=L2(eps=1))], {}, ValueError, "different threats"),
        ([lambda m, x, y, random: x], {}, ValueError, "no threat of its own: say what counts"),
        ([PGD(threat=THREAT, loss=targeted(cross_entropy))], {}, ValueError, "the loss of PGD takes targets"),
        ([PGD(threat=THREAT)], {"seed": "0"}, TypeError, "seed must be an int"),
    ],
)
def test_refuses_wrong_settings(attacks, settings, error, message):
    with pytest.raises(error, match=message):
        WorstCase(attacks, **settings)


def test_refuses_wrong_calls(suite, model, images, labels):
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got .*put the mean/std step inside the model"):
        suite.run(model, images * 3 - 1, labels)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        suite.run(model, images, labels + 3)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        suite.run(model, images, labels, batch_size=0)
    with pytest.raises(ValueError, match="ids of 3 images, but 23 images were given"):
        suite.run(model, images, labels, torch.arange(3))
    with pytest.raises(TypeError, match="it returned a tuple of 2: wrap it"):
        suite.run(lambda x: (model(x), x), images, labels)
    with pytest.raises(ValueError, match="for one output z return two logits"):
        suite.run(lambda x: model(x)[:, :1], images, labels)
    with pytest.raises(ValueError, match="changes its input in place"):
        suite.run(lambda x: model(x.sub_(0.1)), images, labels)
    wrong = WorstCase([lambda m, x, y, random: x[:1]], threat=THREAT)
    with pytest.raises(ValueError, match="turned images"):
        wrong.run(model, images, labels)
