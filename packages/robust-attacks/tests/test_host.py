"""Where the host may not look at tensors, no loop waits for the device, and the results are the same."""

import pytest
import torch
from robust_attacks import (
    FGSM,
    L1,
    L2,
    MIFGSM,
    NFGSM,
    PGD,
    AdversarialPatch,
    Discrete,
    ImageRandom,
    Linf,
    PatchFool,
    PatchPGD,
    Pyramid,
    TransferAttack,
    _host,
)
from torch.utils._python_dispatch import TorchDispatchMode

SHAPE = (2, 8, 8)
ATTACKS = {
    "FGSM-RS": lambda steps: FGSM(threat=Linf(eps=0.05), random_start=True),
    "N-FGSM": lambda steps: NFGSM(threat=Linf(eps=0.05)),
    "MI-FGSM": lambda steps: MIFGSM(threat=L2(eps=0.4), steps=steps),
    "PGD": lambda steps: PGD(threat=L1(eps=2.0), steps=steps),
    "PGD with restarts": lambda steps: PGD(threat=Linf(eps=0.04), steps=steps, restarts=2),
    "PGD on patches": lambda steps: PatchPGD(threat=Linf(eps=0.2), patch_size=2, share=0.3, steps=steps),
    "patch": lambda steps: AdversarialPatch(size=3, steps=steps, restarts=2),
    "Patch-Fool": lambda steps: PatchFool(patch_size=4, choice="saliency", steps=steps),
    "sparse Patch-Fool": lambda steps: PatchFool(patch_size=4, choice="random", steps=steps, pixels=9),
    "pyramid": lambda steps: Pyramid(cells=(4, 1), multipliers=(10, 1), steps=steps),
    "discrete": lambda steps: Discrete(quantiser=lambda images: (images * 8).round() / 8),
    "transfer": lambda steps: TransferAttack(relative_eps=0.06, steps=steps),
}
each_attack = pytest.mark.parametrize("make", ATTACKS.values(), ids=ATTACKS.keys())


class Waits(TorchDispatchMode):
    """Counts the operations for which a host would have to wait for a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        waits = name in ("_local_scalar_dense", "nonzero", "masked_select", "equal")
        if name in ("index", "index_put", "index_put_"):
            waits = any(index is not None and index.dtype == torch.bool for index in args[1])
        self.count += waits
        return function(*args, **kwargs or {})


def batch(rows, count=30):
    model = rows(SHAPE)
    images = torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return model, images, model(images).argmax(dim=1)


def waits(attack, model, images, labels):
    with Waits() as seen:
        attack(model, images, labels, random=ImageRandom(0))
    return seen.count


@each_attack
def test_the_results_are_the_same(make, rows, monkeypatch):
    given = batch(rows)
    expected = make(12)(*given, random=ImageRandom(0))
    assert not torch.equal(expected, given[1])
    monkeypatch.setattr(_host, "can_look", lambda tensor: False)
    torch.testing.assert_close(make(12)(*given, random=ImageRandom(0)), expected, rtol=0, atol=1e-9)


@each_attack
def test_longer_runs_do_not_wait_more_often(make, rows, monkeypatch):
    """Some look every ten steps who is left."""
    monkeypatch.setattr(_host, "can_look", lambda tensor: False)
    given = batch(rows, 6)
    few = waits(make(2), *given)
    assert few > 0  # at least once, for the check of the images
    assert waits(make(8), *given) == few


def test_the_count_of_the_test_above_sees_what_waits():
    numbers = torch.arange(3.0)
    for operation in (
        lambda: bool((numbers > 1).any()),
        lambda: numbers.max().item(),
        lambda: (numbers > 1).nonzero(),
        lambda: numbers[numbers > 1],
        lambda: torch.equal(numbers, numbers.clone()),
    ):
        with Waits() as seen:
            operation()
        assert seen.count >= 1
    with Waits() as seen:
        torch.where(numbers > 1, numbers, 0).index_copy(0, torch.tensor([0]), numbers[:1])
    assert seen.count == 0
