"""Patch-Fool: whole input patches of a vision transformer, aimed at its attention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._adam import adam_step
from robust_attacks._attention import AttentionModel, Attentive, without_conflict
from robust_attacks._ball import Projector
from robust_attacks._checks import Model, check_call
from robust_attacks._gradient import Objective
from robust_attacks._patches import Patches
from robust_attacks._purity import pristine
from robust_attacks._settings import check_count, check_loss, check_number, check_threat
from robust_attacks.losses import Loss, cross_entropy, succeeded
from robust_attacks.masked import Masked
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Linf, Threat

Choice = Literal["attention", "saliency", "random"]
State = dict[str, Tensor]

_ANY = Linf(eps=1.0)


@dataclass(frozen=True, kw_only=True)
class PatchFool:
    """Replace whole patches of a vision transformer, climbing loss and attention at once with Adam.

    Fu, Zhang, Wu, Wan, Lin, "Patch-Fool: are vision transformers always robust against adversarial perturbations?",
    ICLR 2022, arXiv:2203.08392. Of every block l = 2..L/2 (counted from 1) the attention that the best patch receives
    is raised too; where its gradient h conflicts with that of the loss, g, what is against g is taken off, as
    h - (<h, g> / ||g||^2) g (PCGrad). Differences from the authors' code: it divides by ||g|| in place of its square,
    which is not orthogonal; and it judges the last iterate alone, while here the first iterate that wins is returned.
    An image that the attacker has won when it is clean comes back unchanged; one that is never won as the last iterate.

    The model returns logits, or a pair of logits and attention maps, one post-softmax (N, heads, T, T) per block,
    queries before keys, and differentiable, which fused attention is not. For a transformer of timm (whose fused
    attention this switches off):

        class WithAttention(torch.nn.Module):
            def __init__(self, model):  # with normalisation inside, as in torch.nn.Sequential(normalize, vit)
                super().__init__()
                self.model = model
                self.layers = [module for module in model.modules() if hasattr(module, "attn_drop")]
                for layer in self.layers:
                    layer.fused_attn = False

            def forward(self, images):
                maps = []
                keep = lambda module, arguments, output: maps.append(arguments[0])
                hooks = [layer.attn_drop.register_forward_hook(keep) for layer in self.layers]
                try:
                    return self.model(images), maps
                finally:
                    for hook in hooks:
                        hook.remove()

    Without attention maps the loss is climbed alone, and the choice is by saliency or random. Costs one forward pass
    (for saliency also one backward), `steps` forward and backward passes, of which each has up to L/2 - 1 shorter
    backward passes more for the attention, and one forward pass.

    Args:
        patches: how many patches of an image may change, >= 1.
        patch_size: side of the patches in pixels, as in the model; it must divide both sides of the images.
        choice: which patches, seen on the clean image: `"attention"`, that receive most of it in block `layer`, in the
            mean over heads and queries; `"saliency"`, with the largest sum of absolute loss gradients; `"random"`.
        layer: the block whose attention chooses, counted from 0; 4 is the fifth block (of 12 in the paper).
        prefix_tokens: tokens before those of the patches: 1 for a class token, 2 for DeiT's distilled ones, 0 for none.
        steps: gradient steps, >= 1.
        learning_rate: of Adam, in [0, 1] pixel units. The paper's 0.22 is in inputs divided by the standard deviation
            of ImageNet, about 0.225, which makes it 0.05 here.
        decay: factor of the learning rate every `decay_every` steps, in (0, 1].
        decay_every: see `decay`, >= 1.
        attention_weight: weight of the attention next to the loss, >= 0; 0 leaves its gradients uncomputed.
        pixels: for the sparse variant, how many pixels (with all their channels) of the patches change: those with the
            largest scores, which start at random and are trained straight through the choice; None means all.
        pixel_rate: learning rate of the scores, without decay.
        pixel_steps: number of steps after which the scores are frozen, >= 1.
        threat: for the mild variant, `Linf` or `L2` with the radius of the change; None means any pixels in [0, 1].
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).

    Examples:
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 8 - images.sum(dim=(1, 2, 3))), dim=1)
        >>> images, labels = torch.full((1, 1, 4, 4), 0.3), torch.tensor([0])
        >>> attack = PatchFool(patch_size=2, choice="saliency")
        >>> adversarial = attack(model, images, labels, random=ImageRandom(seed=0))
        >>> (adversarial != images).sum(), model(adversarial).argmax(dim=1)
        (tensor(4), tensor([1]))
    """

    patches: int = 1
    patch_size: int = 16
    choice: Choice = "attention"
    layer: int = 4
    prefix_tokens: int = 1
    steps: int = 250
    learning_rate: float = 0.05
    decay: float = 0.95
    decay_every: int = 10
    attention_weight: float = 0.002
    pixels: int | None = None
    pixel_rate: float = 0.01
    pixel_steps: int = 200
    threat: Threat | None = None
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        for name in ("patches", "patch_size", "steps", "decay_every", "pixel_steps"):
            check_count("PatchFool", name, getattr(self, name))
        if self.choice not in get_args(Choice):
            raise ValueError(f'PatchFool: choice must be "attention", "saliency" or "random", got {self.choice!r}')
        for name in ("layer", "prefix_tokens"):
            check_count("PatchFool", name, getattr(self, name), least=0)
        check_number("PatchFool", "learning_rate", self.learning_rate, open_below=True)
        check_number("PatchFool", "decay", self.decay, most=1, open_below=True)
        check_number("PatchFool", "attention_weight", self.attention_weight)
        check_number("PatchFool", "pixel_rate", self.pixel_rate, open_below=True)
        if self.pixels is not None:
            check_count("PatchFool", "pixels", self.pixels, most=self.patches * self.patch_size**2)
        if self.threat is not None:
            check_threat("PatchFool", self.threat)
        check_loss("PatchFool", self.loss)

    def __call__(
        self, model: AttentionModel, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None
    ) -> Tensor:
        """Replace patches of the images and hand back new ones; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K), or to a pair of logits and attention maps.
            images: float32 or float64 (N, C, H, W) in [0, 1], H and W multiples of `patch_size`.
            labels: true classes, or targets for a `targeted` loss, int64 (N,).
            random: the images' random streams; None draws one seed from torch's CPU generator. Draws:
                `patch-fool/start` and `patch-fool/scores` by the flat pixel index, `patch-fool/patches`.

        Raises:
            TypeError: if images, labels, `random`, logits or attention maps are of a wrong type.
            ValueError: if their shapes or values are wrong, the images do not divide into patches, or the choice needs
                attention maps that the model does not return.

        Warns:
            RuntimeWarning: if there was no gradient to follow, or logits or gradients of images were not finite.
        """
        random = check_call(self.threat or _ANY, images, labels, random)
        grid = Patches.of("PatchFool", images, self.patch_size)
        if self.patches > grid.count:
            raise ValueError(f"PatchFool: {self.patches} patches were asked of images that have {grid.count}")
        if not len(images):
            return images.detach().clone()
        with pristine(cast("Model", model), images, random.seed) as lent:
            images, labels = images.detach().clone(), labels.clone()
            attentive = Attentive("PatchFool", lent, grid, self.prefix_tokens)
            objective = Objective(attentive, self.loss, images)
            logits, chosen = self._choose(objective, attentive, grid, images, labels, random)
            mask = grid.mask(chosen)
            rows = (~succeeded(self.loss, logits, labels)).nonzero()[:, 0]
            result = images.clone()
            if len(rows):
                state = {"rows": rows, "images": images[rows], "labels": labels[rows]}
                state |= {"mask": mask[rows], "watched": chosen[rows, 0]}
                self._climb(objective, attentive, state, random[rows], result)
            return objective.finish(Masked(threat=self.threat or _ANY, mask=mask), result)

    def _choose(
        self,
        objective: Objective,
        attentive: Attentive,
        grid: Patches,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom,
    ) -> tuple[Tensor, Tensor]:
        """The logits of the clean images, and the patches of each, int64 (N, patches), the best one first."""
        if self.choice == "saliency":
            gradient, logits = objective.gradient(images, labels)
            scores = grid.sums(gradient.abs().double())
        else:
            with torch.no_grad():
                logits = objective.logits(images, labels)
            if self.choice == "random":
                return logits, random.choice("patch-fool/patches", grid.count, self.patches)
            scores = attentive.scores(self.layer)
        return logits, scores.sort(dim=1, descending=True, stable=True).indices[:, : self.patches]

    def _climb(
        self, objective: Objective, attentive: Attentive, state: State, random: ImageRandom, result: Tensor
    ) -> None:
        """Attack the images of the state and write their first winning or last iterates into `result`.

        An image that has won is dropped; on a GPU every ten steps only, because that takes a look from the host.
        """
        project = self._start(state, random)
        for step in range(self.steps + 1):
            points = torch.where(state["shown"], state["patches"], state["images"])
            objective.focus(state["rows"])
            if step < self.steps:
                attentive.watched = state["watched"] if self.attention_weight else None
                gradient, logits = objective.gradient(points, state["labels"])
            else:
                with torch.no_grad():
                    logits = objective.logits(points, state["labels"])
            won = state["won"][:, None, None, None]
            result[state["rows"]] = torch.where(won, result[state["rows"]], points)
            state["won"] = state["won"] | succeeded(self.loss, logits, state["labels"])
            if step == self.steps:
                return
            self._move(state, gradient, attentive.gradients, step)
            if _host.can_look(result) or step % 10 == 9:
                left = (~state["won"]).nonzero()[:, 0]
                if not len(left):
                    return
                if len(left) < len(state["won"]):
                    state = {name: values[left] for name, values in state.items()}
                    project = self._projector(state)
            state["patches"] = project(state["patches"])

    def _projector(self, state: State) -> Projector:
        threat = (self.threat or _ANY).select(state["rows"])
        return Masked(threat=threat, mask=state["mask"]).projector(state["images"])

    def _start(self, state: State, random: ImageRandom) -> Projector:
        """Noise in the patches: anywhere in [0, 1], or for the mild variant anywhere in the cube of the radius."""
        images, project = state["images"], self._projector(state)
        noise = random.uniform("patch-fool/start", images.shape[1:], dtype=images.dtype)
        if self.threat is not None:
            noise = images + self.threat.select(state["rows"]).radii(images) * (2 * noise - 1)
        state["patches"] = project(noise.to(images.dtype))
        state["first"], state["second"] = torch.zeros_like(images), torch.zeros_like(images)
        state["won"] = torch.zeros_like(state["rows"], dtype=torch.bool)
        state["shown"] = state["mask"]
        if self.pixels is not None:
            scores = random.uniform("patch-fool/scores", (1, *images.shape[2:]), dtype=images.dtype)
            state["scores"] = scores
            state["scores first"], state["scores second"] = torch.zeros_like(scores), torch.zeros_like(scores)
            state["shown"] = _highest(scores, state["mask"], self.pixels)
        return project

    def _move(self, state: State, gradient: Tensor, attention: Sequence[Tensor], step: int) -> None:
        """One step of Adam on the patches, to be projected, and on the scores of the pixels."""

        def ascent(chain: Callable[[Tensor], Tensor]) -> Tensor:
            """Loss and attention as one, for a variable whose gradient is `chain` of that of the points."""
            own = chain(gradient)
            return own + self.attention_weight * without_conflict(own, [chain(other) for other in attention])

        change, shown = state["patches"] - state["images"], state["shown"]
        rate = self.learning_rate * self.decay ** (step // self.decay_every)
        climb = ascent(lambda g: torch.where(shown, g, 0))
        state["patches"] = state["patches"] + adam_step(climb, state["first"], state["second"], step + 1, rate)
        if self.pixels is not None and step < self.pixel_steps:
            climb = ascent(lambda g: torch.where(state["mask"], (g * change).sum(dim=1, keepdim=True), 0))
            moments = state["scores first"], state["scores second"]
            state["scores"] = state["scores"] + adam_step(climb, *moments, step + 1, self.pixel_rate)
            state["shown"] = _highest(state["scores"], state["mask"], self.pixels)


def _highest(scores: Tensor, mask: Tensor, count: int) -> Tensor:
    """The `count` pixels of the mask with the largest scores, bool (N, 1, H, W)."""
    top = scores.masked_fill(~mask, -torch.inf).flatten(1).topk(count, dim=1).indices
    return torch.zeros_like(mask.flatten(1)).scatter(1, top, True).reshape(mask.shape)
