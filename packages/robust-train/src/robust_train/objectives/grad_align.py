"""GradAlign: one gradient step, and input gradients that agree within the ball."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from robust_attacks import FGSM, ImageRandom
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from robust_train.errors import SetupError
from robust_train.objectives.objective import Adversarially, Context, Metrics, correct, cross_entropy
from robust_train.perturb import FULL, Strength, attack_mode, weakened
from robust_train.settings import BatchNorm
from robust_train.settings.require import require_not_negative


@dataclass(frozen=True, kw_only=True)
class GradAlign(Adversarially):
    """The mean of CE(x', y) + weight (1 - cos(g(x), g(x + eta))), g the input gradient, eta uniform in the ball.

    Andriushchenko, Flammarion, "Understanding and improving fast adversarial training", NeurIPS 2020, arXiv:2007.02617.
    x' is x after one gradient step, for which g(x) serves as well, so it is computed once. Gradients of the weights
    flow through g(x + eta) alone, by a second differentiation. As in the authors' code, images of which one gradient is
    zero are left out of the mean of the second term, and x + eta is not cut to the box.

    A step costs 2 passes for the attack, 3 over x', and about 6 for the second term (forward, backward to the images,
    and back through both). Whatever the precision of the training, both gradients are computed in the dtype of the
    weights, and attention by its plain path, since the fused ones cannot be differentiated twice. Neither can a model
    that was compiled by torch.compile.

    `perturb` makes three views of every image: x', x + eta and, although it is no image, g(x).

    Args:
        attack: `FGSM` from the image itself in Linf, `FGSM(threat=Linf(eps=8 / 255), step_size=1.25 * 8 / 255)`.
        batch_norm: the model's mode for g(x), see `robust_train.perturb.attack_mode`: g(x + eta) is computed in
            training mode, so with batch norm or dropout "eval" would compare gradients of two functions.
        precision: has no effect here.
        weight: of the second term, lambda in the paper, >= 0: 0.2 at eps 8/255 for CIFAR-10.

    Raises:
        ValueError: if the attack is another one.
    """

    attack: FGSM
    batch_norm: BatchNorm = "train_moving"
    weight: float = 0.2

    def __post_init__(self) -> None:
        given: Any = self.attack  # from a recipe it may be any attack
        if not (isinstance(given, FGSM) and not given.random_start and given.threat.name == "Linf"):
            raise ValueError(
                "GradAlign uses one gradient twice, so its attack must be FGSM from the image itself in Linf "
                f"(attack.name fgsm, start image, norm Linf), got {self.attack}"
            )

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom | None = None,
        *,
        strength: Strength = FULL,
    ) -> Tensor:
        """Make x', x + eta and g(x), (N, 3, C, H, W), of `images` (N, C, H, W) in [0, 1]."""
        random = ImageRandom.fresh(len(images), images.device) if random is None else random.of(images)
        with attack_mode(model, self.batch_norm):
            gradient = _input_gradient(model, images, labels)
        attack = self.attack if strength == FULL else weakened(self.attack, strength)
        radii = torch.as_tensor(attack.threat.radii(images), dtype=images.dtype, device=images.device)
        step = radii if attack.step_size is None else attack.step_size
        adversarial = attack.threat.projector(images)(images + step * gradient.sign())
        noise = radii * (2 * random.uniform("grad_align/noise", images.shape[1:]).to(images) - 1)
        return torch.stack((adversarial, images + noise, gradient), dim=1)

    def losses(
        self,
        model: nn.Module,
        images: Tensor,  # noqa: ARG002 - g(x) is known
        perturbed: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `adversarial_accuracy` and `alignment` (the cosine)."""
        adversarial, noisy, gradient = perturbed.unbind(1)
        logits = model(adversarial)
        other = _input_gradient(model, noisy, labels, differentiable=True)
        cosine, known = _cosine(gradient, other)
        share = known / known.to(cosine).mean().clamp(min=1 / len(known))  # so that the mean is one over the known
        metrics = {
            "adversarial_accuracy": correct(logits, labels),
            "alignment": (share * cosine).detach().sum(),
        }
        return cross_entropy(logits, labels) + self.weight * share * (1 - cosine), metrics


def _input_gradient(model: nn.Module, images: Tensor, labels: Tensor, differentiable: bool = False) -> Tensor:
    """The gradients (N, C, H, W) of the cross-entropies; `differentiable` with respect to the weights."""
    with (
        torch.enable_grad(),
        torch.autocast(images.device.type, enabled=False),
        sdpa_kernel(SDPBackend.MATH),
    ):
        leaf = images.detach().requires_grad_()
        total = cross_entropy(model(leaf), labels).sum()
        return torch.autograd.grad(total, leaf, create_graph=differentiable)[0]


def _cosine(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines (N,) of pairs, and which of them exist, since neither vector is zero; 0 for the rest."""
    units, known = [], torch.ones(len(one), dtype=torch.bool, device=one.device)
    for vectors in (one.flatten(1), other.flatten(1)):
        largest = vectors.detach().abs().amax(1, keepdim=True)
        exists = largest > 0
        # First to a size whose square no precision loses: sure predictions have gradients of 1e-20 and less.
        scaled = vectors / torch.where(exists, largest, 1)
        length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        units.append(scaled / torch.where(exists, length, 1))
        known &= exists[:, 0]
    return (units[0] * units[1]).sum(1), known


@dataclass(frozen=True, kw_only=True)
class GradAlignSettings:
    """FGSM and aligned input gradients: Andriushchenko and Flammarion, NeurIPS 2020, arXiv:2007.02617.

    The recipe's attack is fgsm with the start image in Linf.

    Args:
        name: "grad_align".
        weight: of the alignment, lambda in the paper, at least 0.
    """

    attacks: ClassVar[bool] = True

    name: Literal["grad_align"]
    weight: float

    def __post_init__(self) -> None:
        require_not_negative(self, "weight")

    def build(self, context: Context) -> GradAlign:
        """The objective.

        Raises:
            SetupError: if the recipe's attack is another one than the method's.
        """
        try:
            return GradAlign(**context.attacking(), weight=self.weight)
        except ValueError as error:
            raise SetupError(str(error)) from error
