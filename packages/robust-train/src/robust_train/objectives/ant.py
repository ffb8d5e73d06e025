"""Adversarial noise training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from robust_attacks import ImageRandom
from robust_augs import AdversarialNoise, NoiseGenerator
from torch import Tensor, nn

from robust_train.objectives.augmented import generator_of
from robust_train.objectives.objective import Context, Objective
from robust_train.objectives.opponent import Opponent
from robust_train.perturb import FULL, Strength
from robust_train.settings import require


@dataclass(kw_only=True, eq=False)
class ANT(Objective):
    """The cross-entropy of images of which half have noise from a network that learns what noise hurts.

    Rusak et al., "A simple way to make neural networks robust against diverse image corruptions", ECCV 2020,
    arXiv:2001.06057, section 3.2. Before every update the network makes one step of Adam up the loss of the model in
    eval mode, on the images of the update, all of them noisy; then the images are made that the model is trained on. So
    that the model does not forget, some of them have the noise of earlier versions of the network. A step costs two
    forward passes, a backward pass to the images and one to the weights.

    Differs from the published training: where the network starts anew, and at the first update, it is trained alone
    for `warmup` steps on the images of that update, with fresh noise for every step, where that goes on through the
    data; a batch that is cut in parts (`accumulate`) makes a step for every part; of several processes, each has a
    network of its own.

    Args:
        noise: adds the noise; its network starts anew at the first update.
        lr: of the network, positive, 1e-4 in the paper.
        remember_every: updates between two versions of the network that are remembered, an epoch in the paper.
        restart_every: updates after which the network starts anew, 10 epochs in the paper.
        warmup: steps of the network alone when it has started anew, at least 0, 1,000 in the paper.
        warmup_lr: of the network meanwhile, positive, 5e-4 in the paper.
    """

    accuracy: ClassVar[str] = "augmented_accuracy"

    noise: AdversarialNoise
    lr: float = 1e-4
    remember_every: int
    restart_every: int
    warmup: int = 1000
    warmup_lr: float = 5e-4

    _generator: Opponent = field(init=False, repr=False)
    _updates: int = field(init=False, repr=False, default=0)
    _begun: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        self._generator = self._new_opponent()

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom | None = None,
        *,
        strength: Strength = FULL,  # noqa: ARG002
    ) -> Tensor:
        """Let the network climb, and add noise to a share of the images (N, C, H, W)."""
        generator = generator_of(random, "ant")
        restarts = self._updates % self.restart_every == 0 and not self._begun
        if restarts:
            self.noise.network.cpu().reset_parameters(generator=generator)  # all devices draw the same
            self._generator = self._new_opponent()
        self._generator.follow(images)
        for _ in range(self.warmup if restarts else 0):
            self._climb(model, images, labels, generator, self.warmup_lr)
        self._begun = True
        self._climb(model, images, labels, generator, self.lr)
        return self.noise(images, generator=generator)

    def learn(self, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Count the update, and remember the network where it is time."""
        del parts
        self._updates += 1
        self._begun = False
        if self._updates % self.remember_every == 0:
            self.noise.network.remember()

    def state_dict(self) -> dict[str, Any]:
        """The network with its earlier versions, its optimizer, and the number of updates."""
        return {**self._generator.state_dict(), "updates": self._updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._generator.load_state_dict(state_dict)
        self._updates = state_dict["updates"]

    def _new_opponent(self) -> Opponent:
        network = self.noise.network
        return Opponent(network, torch.optim.Adam(network.parameters(), lr=self.lr))

    def _climb(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, lr: float) -> None:
        optimizer = self._generator.optimizer
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        torch.autograd.backward(self.noise.climb(model, images, labels, generator=generator))
        optimizer.step()


@dataclass(frozen=True, kw_only=True)
class ANTSettings:
    """The cross-entropy of images of which a share has noise from a network that learns what noise hurts.

    Args:
        name: "ant".
        eps: L2 norm of the noise in units of [0, 1] pixels; 135 in the paper, for 3 x 224 x 224, and as much per pixel
            is 135 sqrt(C H W / 150528).
        share: of the images in a batch that get noise, in [0, 1], 0.5 in the paper.
        replay: of these, the share that gets noise of earlier versions, in [0, 1], 0.4 in the paper.
        kernel_size: of the network's second convolution: 1, the noise of a pixel does not depend on its neighbours, or
            3, it does.
        lr: of the network, 1e-4 in the paper.
        remember_every: updates between two versions of the network that are remembered, an epoch in the paper.
        restart_every: updates after which the network starts anew, 10 epochs in the paper.
        warmup: steps of the network alone when it has started anew, 1,000 in the paper.
        warmup_lr: of the network meanwhile, 5e-4 in the paper.
    """

    attacks: ClassVar[bool] = False

    name: Literal["ant"]
    eps: float
    share: float
    replay: float
    kernel_size: Literal[1, 3]
    lr: float
    remember_every: int
    restart_every: int
    warmup: int
    warmup_lr: float

    def __post_init__(self) -> None:
        self._noise(channels=1)
        for setting in ("lr", "warmup_lr", "remember_every", "restart_every"):
            number = getattr(self, setting)
            require(number > 0, f"{setting} must be positive, got {number}")
        require(self.warmup >= 0, f"warmup must not be negative, got {self.warmup}")

    def build(self, context: Context) -> ANT:
        """The objective."""
        return ANT(
            noise=self._noise(context.shape[0]),
            lr=self.lr,
            remember_every=self.remember_every,
            restart_every=self.restart_every,
            warmup=self.warmup,
            warmup_lr=self.warmup_lr,
        )

    def _noise(self, channels: int) -> AdversarialNoise:
        network = NoiseGenerator(channels, kernel_size=self.kernel_size, generator=torch.Generator().manual_seed(0))
        return AdversarialNoise(network=network, eps=self.eps, share=self.share, replay=self.replay)
