"""Model and optimizer from a recipe, by timm's factories."""

from typing import Any

from robust_models import create_model, load_weights
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn
from torch.optim import Optimizer

from robust_train.config import Recipe


def build_model(recipe: Recipe) -> nn.Module:
    """The model that takes images in [0, 1], with random weights or those of the recipe's file."""
    settings = recipe.model
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
    return model


def build_optimizer(recipe: Recipe, model: nn.Module) -> Optimizer:
    """Timm's optimizer, with its groups of parameters for weight decay and layer-wise learning rates."""
    settings = recipe.optimizer
    used: dict[str, Any] = {"momentum": settings.momentum, "betas": settings.betas}
    optimizer: Optimizer = create_optimizer_v2(
        model,
        settings.name,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        filter_bias_and_bn=not settings.decay_all,
        layer_decay=settings.layer_decay,
        **{name: value for name, value in used.items() if value is not None},
    )
    return optimizer
