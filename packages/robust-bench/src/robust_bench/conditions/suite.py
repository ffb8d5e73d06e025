"""Images under several attacks."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from robust_attacks import ImageRandom, Report, WorstCase
from robust_attacks.auto_attack import VERSIONS
from torch import Tensor

from robust_bench._checks import Model
from robust_bench.conditions.settings import attack_fields, check_one_eps
from robust_bench.tables import eps_text


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Several attacks, each on what the ones before it have left standing, such as AutoAttack.

    An image counts as robust when it is right when clean and under all attacks.

    Args:
        suite: e.g. `auto_attack(Linf(eps=8 / 255))`; its seed gives way to that of the evaluation.

    Raises:
        ValueError: if the threat's eps is one number per image.
    """

    suite: WorstCase
    only_right: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_one_eps(self._threat.eps)

    @property
    def label(self) -> str:
        """Name the suite with norm and eps."""
        name = f"AutoAttack {self.suite.name}" if self.suite.name in VERSIONS else self.suite.name
        return f"{name}, {self._threat.name} {eps_text(self._threat.eps)}"

    @property
    def settings(self) -> dict[str, Any]:
        """Give the name, norm, eps, and the attacks with all their fields."""
        attacks = {name: attack_fields(attack) for name, attack in self.suite.stages.items()}
        return {
            "kind": "attack",
            "attack": self.suite.name,
            "norm": self._threat.name,
            "eps": float(self._threat.eps),
            "attacks": attacks,
        }

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        ids: Tensor | None,
        seed: int,
        batch_size: int,
        checkpoint: Path | None = None,
    ) -> Report:
        """Attack images, as many at once as there are; see `robust_attacks.WorstCase.run`."""
        suite = dataclasses.replace(self.suite, seed=seed)
        return suite.run(model, images, labels, ids, batch_size=batch_size, checkpoint=checkpoint)

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Attack one batch."""
        report = self.run(model, images, labels, random.ids, random.seed, max(len(images), 1))
        assert report.adversarial is not None
        return report.adversarial

    @property
    def _threat(self) -> Any:
        return self.suite.threat
