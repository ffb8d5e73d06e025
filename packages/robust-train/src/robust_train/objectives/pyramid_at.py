"""Pyramid adversarial training."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from robust_attacks import ImageRandom, Pyramid
from robust_attacks.pyramid import same_noise
from torch import Tensor, nn

from robust_train.objectives.objective import Context, Metrics, Objective, correct, cross_entropy
from robust_train.perturb import FULL, Strength, attack_mode
from robust_train.settings import BatchNorm


@dataclass(kw_only=True, eq=False)
class PyramidAT(Objective):
    """The cross-entropies of clean images and of images with perturbations of several scales, added.

    Herrmann et al., "Pyramid adversarial training improves ViT performance", CVPR 2022, arXiv:2111.15121, section 3.
    The attack and the passes of the clean and of the perturbed images have the same masks of dropout and stochastic
    depth. A step costs the attack and two forward and backward passes: 16 passes with five attack steps.

    The masks follow from the seed of the update, which `perturb` leaves for `losses`: the parts of a batch
    (`accumulate`) have the same masks, and `losses` is for images of the latest update.

    Args:
        attack: makes the images.
        batch_norm: the model's mode during the attack, see `robust_train.perturb.attack_mode`. Other than in "train"
            the attack sees no dropout.
    """

    attack: Pyramid
    batch_norm: BatchNorm = "train"

    _seed: int = field(init=False, repr=False, default=0)

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom | None = None,
        *,
        strength: Strength = FULL,  # noqa: ARG002
    ) -> Tensor:
        """Perturb `images` (N, C, H, W) in [0, 1]; no gradient reaches the weights."""
        random = ImageRandom.fresh(len(images), images.device) if random is None else random
        self._seed = random.seed
        with attack_mode(model, self.batch_norm):
            return self.attack(model, images, labels, random=random)

    def losses(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `accuracy` and `adversarial_accuracy`."""
        with same_noise(self._seed):
            clean = model(images)
        with same_noise(self._seed):
            attacked = model(perturbed)
        metrics = {"accuracy": correct(clean, labels), "adversarial_accuracy": correct(attacked, labels)}
        return cross_entropy(clean, labels) + cross_entropy(attacked, labels), metrics


@dataclass(frozen=True, kw_only=True)
class PyramidATSettings:
    """The cross-entropies of clean images and of images with perturbations of several scales, added.

    Args:
        name: "pyramid_at".
        cells: sides of the square cells of each scale in pixels; (32, 16, 1) in the paper, for 224 x 224.
        multipliers: weight of each scale, (20, 10, 1) in the paper.
        eps: how far a cell's value may go before it is multiplied, in units of [0, 1] pixels; 3/255 in the paper, in
            whose units of [-1, 1] that is 6/255.
        step_size: how far it goes per step; a sixth of eps in the paper.
        steps: gradient steps, 5 in the paper.
        random_target: move towards a random class, as the paper does, and not away from the label.
        batch_norm: mode of the model during the attack, see `robust_train.perturb`; "train" in the paper.
    """

    attacks: ClassVar[bool] = False

    name: Literal["pyramid_at"]
    cells: tuple[int, ...]
    multipliers: tuple[float, ...]
    eps: float
    step_size: float
    steps: int
    random_target: bool
    batch_norm: BatchNorm

    def __post_init__(self) -> None:
        self._attack()

    def build(self, _: Context) -> PyramidAT:
        """The objective."""
        return PyramidAT(attack=self._attack(), batch_norm=self.batch_norm)

    def _attack(self) -> Pyramid:
        return Pyramid(
            cells=self.cells,
            multipliers=self.multipliers,
            eps=self.eps,
            step_size=self.step_size,
            steps=self.steps,
            random_target=self.random_target,
        )
