"""The suites of AutoAttack."""

from robust_attacks._settings import check_threat
from robust_attacks.apgd import APGD
from robust_attacks.fab import FAB
from robust_attacks.losses import dlr
from robust_attacks.square import Square
from robust_attacks.threats import Threat
from robust_attacks.worst_case import Attack, WorstCase

VERSIONS = ("standard", "plus", "rand", "fast")


def auto_attack(threat: Threat, version: str = "standard", *, seed: int = 0) -> WorstCase:
    """AutoAttack: the worst case over attacks that need no tuning.

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    ICML 2020, arXiv:2003.01690; L1: Croce and Hein, "Mind the box", ICML 2021, arXiv:2103.01208.

    | version | attacks | |
    |---|---|---|
    | `standard` | apgd-ce, apgd-t, fab-t, square | 100 steps, 9 targets, 5000 queries (L1: 5 restarts, 5 targets) |
    | `plus` | apgd-ce, apgd-dlr, fab, square, apgd-t, fab-t | 5 restarts of the untargeted; Linf and L2 only |
    | `rand` | apgd-ce, apgd-dlr | for randomised models: evaluations average 20 draws |
    | `fast` | apgd-ce, apgd-t | a screen, not AutoAttack: 50 steps, 50 steps towards 3 targets |

    With fewer than ten classes the number of targets is K - 1; with three the targeted DLR loss divides by what is left
    to divide by, with two apgd-dlr increases the margin. Every such substitution stands in the report's notes.

    Args:
        threat: `Linf`, `L2` or `L1`.
        version: `"standard"`, `"plus"`, `"rand"`, or `"fast"`.
        seed: of the images' random streams; results differ a little between seeds, so it is always set.

    Raises:
        TypeError: if `threat` is none.
        ValueError: if the version is unknown, or not published for the norm.

    Examples:
        >>> from robust_attacks import Linf, auto_attack
        >>> list(auto_attack(Linf(eps=8 / 255)).attacks)
        ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """
    check_threat("auto_attack", threat)
    if version not in VERSIONS:
        raise ValueError(f"auto_attack: version must be one of {', '.join(VERSIONS)}, got {version!r}")
    if version == "plus" and threat.name == "L1":
        raise ValueError(
            "auto_attack: plus is published for Linf and L2 only: use standard, or a WorstCase of your own"
        )
    sparse = threat.name == "L1"
    targets = 5 if sparse else 9
    apgd_t, fab_t, square = APGD(threat=threat, targets=targets), FAB(threat=threat, targets=9), Square(threat=threat)
    attacks: dict[str, list[Attack]] = {
        "standard": [APGD(threat=threat, restarts=5 if sparse else 1), apgd_t, fab_t, square],
        "plus": [
            APGD(threat=threat, restarts=5),
            APGD(threat=threat, restarts=5, loss=dlr),
            FAB(threat=threat, restarts=5),
            square,
            apgd_t,
            fab_t,
        ],
        "rand": [APGD(threat=threat, eot=20), APGD(threat=threat, loss=dlr, eot=20)],
        "fast": [APGD(threat=threat, steps=50), APGD(threat=threat, steps=50, targets=3)],
    }
    return WorstCase(attacks[version], threat=threat, name=version, seed=seed)
