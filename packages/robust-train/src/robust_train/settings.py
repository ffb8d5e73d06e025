"""The sections of a recipe, each a frozen dataclass without hidden defaults."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from timm.optim import get_optimizer_info, list_optimizers  # type: ignore[attr-defined]

Norm = Literal["Linf", "L2", "L1"]
BatchNorm = Literal["eval", "train", "train_moving"]


def require(true: bool, message: str) -> None:
    """Raise a ValueError with `message`, which begins with the setting's name, unless `true`."""
    if not true:
        raise ValueError(message)


def _check_eps(norm: str, eps: float) -> None:
    require(eps > 0, f"eps must be positive, got {eps}")
    if norm == "Linf":
        require(eps <= 1, f"eps is in units of [0, 1] pixels and at most 1 for Linf, got {eps}: write 8/255 and not 8")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is trained: the arguments of `robust_models.create_model`.

    Args:
        name: a timm name or `small_cnn_8`, `small_cnn_32`.
        num_classes: number of logits; must agree with the data.
        in_chans: channels of the images; must agree with the data.
        img_size: for models that are tied to an image size (most transformers); None leaves the model's own.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth, in [0, 1).
        weights: a file of weights to start from, read by `robust_models.load_weights`; None starts from random ones.
    """

    name: str
    num_classes: int
    in_chans: int
    img_size: int | None
    drop_rate: float
    drop_path_rate: float
    weights: str | None

    def __post_init__(self) -> None:
        require(self.num_classes >= 2, f"num_classes must be at least 2, got {self.num_classes}")
        require(self.in_chans >= 1, f"in_chans must be at least 1, got {self.in_chans}")
        require(0 <= self.drop_rate < 1, f"drop_rate must lie in [0, 1), got {self.drop_rate}")
        require(0 <= self.drop_path_rate < 1, f"drop_path_rate must lie in [0, 1), got {self.drop_path_rate}")


@dataclass(frozen=True, kw_only=True)
class DigitsData:
    """The training part of the embedded digits: 1,347 images of 1 x 8 x 8, 10 classes.

    Args:
        name: "digits".
        held_out: share of the training images that is kept for validation, in (0, 0.5].
        drop_last: leave out the images that do not fill the last batch of an epoch.
    """

    name: Literal["digits"]
    held_out: float
    drop_last: bool

    def __post_init__(self) -> None:
        require(0 < self.held_out <= 0.5, f"held_out must lie in (0, 0.5], got {self.held_out}")


@dataclass(frozen=True, kw_only=True)
class FolderData:
    """A folder of images, `<class>/<image>`, or one that holds such a folder as `train`.

    Args:
        name: "folder".
        held_out: share of the training images that is kept for validation, in (0, 0.5].
        drop_last: leave out the images that do not fill the last batch of an epoch.
        size: height and width of the images that the model sees, in pixels.
        scale: smallest and largest share of the area that a random resized crop takes, in (0, 1].
        flip: probability of a horizontal flip, in [0, 1].
        color_jitter: strength of changes in brightness, contrast and saturation; 0 for none.
        crop: share of the image that the centre crop of the validation takes, in (0, 1].
        interpolation: how images are resized.
    """

    name: Literal["folder"]
    held_out: float
    drop_last: bool
    size: int
    scale: tuple[float, float]
    flip: float
    color_jitter: float
    crop: float
    interpolation: Literal["bilinear", "bicubic"]

    def __post_init__(self) -> None:
        require(0 < self.held_out <= 0.5, f"held_out must lie in (0, 0.5], got {self.held_out}")
        require(self.size >= 1, f"size must be at least 1 pixel, got {self.size}")
        low, high = self.scale
        require(0 < low <= high <= 1, f"scale must be two shares 0 < low <= high <= 1, got {list(self.scale)}")
        require(0 <= self.flip <= 1, f"flip must be a probability, got {self.flip}")
        require(self.color_jitter >= 0, f"color_jitter must not be negative, got {self.color_jitter}")
        require(0 < self.crop <= 1, f"crop must lie in (0, 1], got {self.crop}")


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What a training step minimises.

    Args:
        name: "standard" (the cross-entropy of the images) or "adversarial" (of attacked images).
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
    """

    name: Literal["standard", "adversarial"]
    label_smoothing: float

    def __post_init__(self) -> None:
        require(0 <= self.label_smoothing < 1, f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")


@dataclass(frozen=True, kw_only=True)
class FGSMAttack:
    """One gradient step for every image: `robust_attacks.FGSM`.

    Args:
        name: "fgsm".
        norm: of the ball around an image.
        eps: its radius, in units of [0, 1] pixels.
        relative_step: length of the step as a multiple of eps, so that it follows eps.
        random_start: start from a uniform point of the ball; with 1.25 steps this is FGSM-RS.
        batch_norm: mode of the model during the attack, see `robust_train.perturb`.
        autocast: let the attack run in the precision of the training; False computes it in float32.
    """

    name: Literal["fgsm"]
    norm: Norm
    eps: float
    relative_step: float
    random_start: bool
    batch_norm: BatchNorm
    autocast: bool

    def __post_init__(self) -> None:
        _check_eps(self.norm, self.eps)
        require(self.relative_step > 0, f"relative_step must be positive, got {self.relative_step}")


@dataclass(frozen=True, kw_only=True)
class PGDAttack:
    """Several gradient steps, projected back after each: `robust_attacks.PGD`; the last iterate is trained on.

    Args:
        name: "pgd".
        norm: of the ball around an image.
        eps: its radius, in units of [0, 1] pixels.
        steps: gradient steps, each a forward and a backward pass.
        relative_step: length of one step as a multiple of eps, so that it follows eps.
        random_start: start from a uniform point of the ball rather than from the image.
        batch_norm: mode of the model during the attack, see `robust_train.perturb`.
        autocast: let the attack run in the precision of the training; False computes it in float32.
    """

    name: Literal["pgd"]
    norm: Norm
    eps: float
    steps: int
    relative_step: float
    random_start: bool
    batch_norm: BatchNorm
    autocast: bool

    def __post_init__(self) -> None:
        _check_eps(self.norm, self.eps)
        require(self.steps >= 1, f"steps must be at least 1, got {self.steps}")
        require(self.relative_step > 0, f"relative_step must be positive, got {self.relative_step}")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The arguments of `timm.optim.create_optimizer_v2`.

    Args:
        name: one of `timm.optim.list_optimizers()`; there "sgd" means Nesterov's momentum, "momentum" the plain one.
        lr: the highest learning rate; the number that is used, not scaled by anything.
        weight_decay: as the optimizer defines it (decoupled for AdamW).
        momentum: for optimizers that have it, else None.
        betas: for optimizers that have them (Adam and its relatives), else None.
        decay_all: decay biases and other one-dimensional parameters too.
        layer_decay: factor of the learning rate from each layer to the one before it, in (0, 1); None for no such rule.
    """

    name: str
    lr: float
    weight_decay: float
    momentum: float | None
    betas: tuple[float, ...] | None
    decay_all: bool
    layer_decay: float | None

    def __post_init__(self) -> None:
        if self.name not in list_optimizers():
            raise ValueError(
                f"name {self.name!r} is no optimizer of timm: adamw, sgd, lamb, ... (timm.optim.list_optimizers())"
            )
        info = get_optimizer_info(self.name)
        second = f"name {self.name!r} needs second derivatives, which the loop does not compute: use adamw or sgd"
        require(not info.second_order, second)
        for setting, value, used in (
            ("momentum", self.momentum, info.has_momentum),
            ("betas", self.betas, info.has_betas),
        ):
            require(value is not None or not used, f"{setting} must be given: {self.name} uses it")
            require(value is None or used, f"{setting} must be null: {self.name} does not use it")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")
        require(self.momentum is None or 0 <= self.momentum < 1, f"momentum must lie in [0, 1), got {self.momentum}")
        betas = self.betas or ()
        require(len(betas) in (0, info.num_betas), f"betas must be {info.num_betas} numbers, got {list(betas)}")
        require(all(0 <= beta < 1 for beta in betas), f"betas must lie in [0, 1), got {list(betas)}")
        decay = self.layer_decay
        require(decay is None or 0 < decay < 1, f"layer_decay must lie in (0, 1) or be null, got {decay}")


@dataclass(frozen=True, kw_only=True)
class OneCycleSchedule:
    """The learning rate rises to its highest value and falls again, per update.

    Smith and Topin, "Super-convergence", 2018, arXiv:1708.07120; the same curve as
    `torch.optim.lr_scheduler.OneCycleLR` with two phases, without its cycle of momentum.

    Args:
        name: "onecycle".
        peak: share of all updates before the highest learning rate, in (0, 1).
        start: share of the highest learning rate at the first update, in [0, 1].
        end: share of it at the last update, in [0, 1].
        shape: of both flanks.
    """

    name: Literal["onecycle"]
    peak: float
    start: float
    end: float
    shape: Literal["cosine", "linear"]

    def __post_init__(self) -> None:
        require(0 < self.peak < 1, f"peak must lie in (0, 1), got {self.peak}")
        for setting in ("start", "end"):
            share = getattr(self, setting)
            require(0 <= share <= 1, f"{setting} must be a share of lr, in [0, 1], got {share}")


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """A linear warm-up, then half a cosine down, per update.

    Args:
        name: "cosine".
        warmup_epochs: length of the warm-up, less than the recipe's epochs.
        start: share of the highest learning rate at the first update, in [0, 1]; needs a warm-up if it is not 1.
        end: share of it at the end, in [0, 1].
    """

    name: Literal["cosine"]
    warmup_epochs: float
    start: float
    end: float

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, f"warmup_epochs must not be negative, got {self.warmup_epochs}")
        for setting in ("start", "end"):
            share = getattr(self, setting)
            require(0 <= share <= 1, f"{setting} must be a share of lr, in [0, 1], got {share}")
        require(self.warmup_epochs > 0 or self.start == 1, "start has no effect without warmup_epochs: set it to 1")


@dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """The learning rate is multiplied by a factor at given epochs.

    Args:
        name: "steps".
        milestones: the epochs, strictly rising, above 0 and below the recipe's epochs.
        factor: in (0, 1).
    """

    name: Literal["steps"]
    milestones: tuple[float, ...]
    factor: float

    def __post_init__(self) -> None:
        stones = self.milestones
        rising = bool(stones) and stones[0] > 0 and all(one < next_ for one, next_ in pairwise(stones))
        require(rising, f"milestones must be strictly rising epochs above 0, at least one, got {list(stones)}")
        require(0 < self.factor < 1, f"factor must lie in (0, 1), got {self.factor}")


@dataclass(frozen=True, kw_only=True)
class ConstantSchedule:
    """The learning rate stays.

    Args:
        name: "constant".
    """

    name: Literal["constant"]


@dataclass(frozen=True, kw_only=True)
class AverageSettings:
    """An exponential moving average of the weights (timm's `ModelEmaV3`): it is evaluated, selected and exported.

    Args:
        decay: share of the old average that stays at each update, in (0, 1).
        warmup: start with a smaller decay that rises with the updates.
    """

    decay: float
    warmup: bool

    def __post_init__(self) -> None:
        require(0 < self.decay < 1, f"decay must lie in (0, 1), got {self.decay}")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Clean and robust accuracy on the held-out part of the training set, by PGD.

    Args:
        every: epochs between evaluations; the last epoch is always evaluated.
        norm: of the ball; None takes the norm of the training attack.
        eps: radius of the ball in units of [0, 1] pixels; None takes that of the training attack.
        steps: gradient steps of PGD.
        relative_step: length of one step as a multiple of eps.
        restarts: runs from different starting points; an image counts when it stands all of them.
        batch_size: images per batch, which changes the speed only.
    """

    every: int
    norm: Norm | None
    eps: float | None
    steps: int
    relative_step: float
    restarts: int
    batch_size: int

    def __post_init__(self) -> None:
        for setting in ("every", "steps", "restarts", "batch_size"):
            number = getattr(self, setting)
            require(number >= 1, f"{setting} must be at least 1, got {number}")
        require((self.norm is None) == (self.eps is None), "norm and eps must be given both, or both be null")
        if self.norm is not None and self.eps is not None:
            _check_eps(self.norm, self.eps)
        require(self.relative_step > 0, f"relative_step must be positive, got {self.relative_step}")
