"""The cases on which AutoAttack is compared, from robust networks to one that is not."""

from dataclasses import dataclass, replace

from _stored import Stored, stored
from robust_attacks import APGD, FAB, L1, L2, Linf, Square, Threat, WorstCase, auto_attack


@dataclass(frozen=True)
class Case:
    """A stored model and a threat, how many of its images, and what share of the peer's time is aimed at."""

    title: str
    model: str
    threat: Threat
    count: int
    goal: float

    @property
    def eps(self) -> float:
        """The radius, one number here."""
        return float(self.threat.eps)  # type: ignore[attr-defined]

    def data(self, quick: bool, count: int | None = None) -> Stored:
        """Model, images and labels; of a quick try only twelve."""
        return stored(self.model, 12 if quick else count or self.count)

    def suite(self, quick: bool, version: str = "standard", seed: int = 0) -> WorstCase:
        """AutoAttack; of a quick try with hardly any steps."""
        suite = auto_attack(self.threat, version, seed=seed)
        if not quick:
            return suite
        fewer: dict[type, dict[str, int]] = {APGD: {"steps": 5}, FAB: {"steps": 3}, Square: {"queries": 30}}
        attacks = {name: replace(attack, **fewer[type(attack)]) for name, attack in suite.stages.items()}  # type: ignore[type-var]
        return replace(suite, attacks=attacks, name="thinned")


CASES = (
    Case("robust CIFAR-10 CNN, Linf 2/255", "cifar_cnn_a_adv", Linf(eps=2 / 255), 200, 0.5),
    Case("robust MNIST CNN, Linf 0.3", "mnist_cnn_a_adv", Linf(eps=0.3), 200, 0.65),
    Case("plain ResNet-20, Linf 8/255", "resnet20", Linf(eps=8 / 255), 30, 0.1),
    Case("robust CIFAR-10 CNN, L1 8", "cifar_cnn_a_adv", L1(eps=8.0), 60, 0.35),
    Case("robust CIFAR-10 CNN, L2 0.5", "cifar_cnn_a_adv", L2(eps=0.5), 60, 0.55),
)
