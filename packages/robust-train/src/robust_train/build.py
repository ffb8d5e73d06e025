"""Model and optimizer from a recipe, by timm's factories."""

from functools import partial
from typing import Any

import torch
from robust_models import create_model, load_weights
from robust_optim import (
    AWP,
    ESAM,
    GSAM,
    SAM,
    LookSAM,
    PowerWarmUp,
    RatioWarmUp,
    TwoPass,
    WeightAverage,
    frozen_batch_norm,
)
from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn
from torch.optim import Optimizer

from robust_train._fields import plain
from robust_train.config import Recipe
from robust_train.errors import SetupError
from robust_train.objectives import Context, Objective
from robust_train.perturb import build_attack
from robust_train.schedule import set_learning_rate
from robust_train.seeds import derive
from robust_train.settings import AWPSettings, ESAMSettings

_WRAPPERS: dict[str, type[TwoPass]] = {"sam": SAM, "gsam": GSAM, "esam": ESAM, "looksam": LookSAM, "awp": AWP}


def build_model(recipe: Recipe) -> nn.Module:
    """The model that takes images in [0, 1], with random weights or those of the recipe's file.

    Raises:
        SetupError: if there is no such model, or the file does not fit it.
    """
    settings = recipe.model
    try:
        model = create_model(
            settings.name,
            num_classes=settings.num_classes,
            in_chans=settings.in_chans,
            img_size=settings.img_size,
            drop_rate=settings.drop_rate,
            drop_path_rate=settings.drop_path_rate,
        )
        if settings.weights is not None:
            load_weights(model, settings.weights)
    except ValueError as error:
        raise SetupError(str(error)) from error
    if settings.grad_checkpointing:
        switch = getattr(model, "set_grad_checkpointing", None)
        if switch is None:
            raise SetupError(f"the model {settings.name} cannot: set model.grad_checkpointing to false")
        switch(True)
    return model


def check_model(recipe: Recipe, model: nn.Module, shape: tuple[int, int, int], smallest_batch: int) -> None:
    """Try the model on black images before the run begins; it stays as it is, in training mode.

    Args:
        recipe: for messages.
        model: on the CPU or a GPU.
        shape: (channels, height, width) of an image.
        smallest_batch: images in the smallest batch of an epoch.

    Raises:
        SetupError: if the model does not take images of this shape, or batch norm does not take a single one.
    """
    images = torch.zeros(2, *shape, device=next(model.parameters()).device)
    try:
        with torch.no_grad():
            model.eval()(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        size = " x ".join(map(str, shape))
        raise SetupError(
            f"the model {recipe.model.name} does not take images of {size} with model.img_size "
            f"{recipe.model.img_size}: set model.img_size to {shape[-1]}, or choose another model.name ({error})"
        ) from error
    finally:
        model.train()
    if smallest_batch > 1:
        return
    try:
        with torch.no_grad(), frozen_batch_norm(model):
            model(images[:1])
    except ValueError as error:
        raise SetupError(
            "the last batch of an epoch is a single image, which the batch norm of this model cannot take: set "
            f"data.drop_last to true, or change batch_size ({error})"
        ) from error


def build_optimizer(recipe: Recipe, model: nn.Module) -> Optimizer:
    """Timm's optimizer, with its groups of parameters for weight decay and layer-wise learning rates.

    Its learning rate is the highest one, which `wrap_optimizer` may want to know.

    Raises:
        SetupError: if the optimizer needs a GPU or a package that is not here.
    """
    settings = recipe.optimizer
    used: dict[str, Any] = {"momentum": settings.momentum, "betas": settings.betas}
    try:
        optimizer: Optimizer = create_optimizer_v2(
            model,
            settings.name,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            filter_bias_and_bn=not settings.decay_all,
            layer_decay=settings.layer_decay,
            **{name: value for name, value in used.items() if value is not None},
        )
    except (AssertionError, ImportError, RuntimeError, ValueError) as error:
        raise SetupError(
            f"optimizer.name {settings.name!r} cannot be used here: {error}; adamw and sgd always can"
        ) from error
    return optimizer


def wrap_optimizer(
    recipe: Recipe, base: Optimizer, model: nn.Module, scaler: torch.amp.GradScaler, updates_per_epoch: int
) -> Optimizer:
    """The optimizer of robust-optim around `base` that the recipe asks for, or `base` itself.

    Raises:
        SetupError: if the two do not go together.
    """
    settings = recipe.sharpness
    if settings is None:
        return base
    clip = None if recipe.clip is None else partial(nn.utils.clip_grad_norm_, max_norm=recipe.clip)
    common: dict[str, Any] = {"model": model, "scaler": scaler, "sync": settings.sync, "clip": clip}
    set_learning_rate(base, recipe.optimizer.lr)  # what GSAM takes for the full rate, with timm's factors
    own = {key: value for key, value in plain(settings).items() if key not in ("name", "sync")}
    if isinstance(settings, AWPSettings):
        own["start"] = round(settings.start * updates_per_epoch)
    if isinstance(settings, ESAMSettings):
        own["seed"] = derive(recipe.seed, "esam")
    try:
        return _WRAPPERS[settings.name](base, **own, **common)
    except (TypeError, ValueError) as error:
        raise SetupError(f"sharpness.name {settings.name!r} cannot be used here: {error}") from error


def build_average(recipe: Recipe, model: nn.Module, updates: int) -> WeightAverage | None:
    """The average of the weights that the recipe asks for, over a run of so many updates."""
    settings = recipe.average
    if settings is None:
        return None
    decay: float | RatioWarmUp | PowerWarmUp = settings.decay
    if settings.warmup != "none":
        decay = {"ratio": RatioWarmUp, "power": PowerWarmUp}[settings.warmup](settings.decay)
    return WeightAverage(model, decay=decay, start=round(settings.start * updates))


def place_model(recipe: Recipe, model: nn.Module, device: torch.device) -> nn.Module:
    """The model on its device, as the recipe wants it there."""
    if recipe.sync_batch_norm and device.type == "cuda":
        model = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model = model.to(device)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.compile:
        model.compile()
    return model


def build_objective(recipe: Recipe, shape: tuple[int, int, int], precision: torch.dtype | None) -> Objective:
    """The objective for images of this shape (channels, height, width), trained in this mixed precision."""
    attack = recipe.attack
    return recipe.objective.build(
        Context(
            attack=build_attack(attack) if attack else None,
            batch_norm=attack.batch_norm if attack else "eval",
            precision=precision if attack and attack.autocast else None,
            shape=shape,
            classes=recipe.model.num_classes,
        )
    )
