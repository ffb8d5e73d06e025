"""Clean and robust accuracy on the held-out images, which choose the best checkpoint."""

import time
from typing import Any

import torch
from robust_bench import evaluate
from robust_bench.conditions import Attacked, Clean
from torch import Tensor, nn

from robust_train.config import Recipe
from robust_train.data import TrainingData
from robust_train.perturb import build_evaluation_attack


def evaluate_held_out(model: nn.Module, recipe: Recipe, data: TrainingData) -> dict[str, float]:
    """Evaluate in eval mode and float32, whatever the precision of the training; modes are as before afterwards.

    Args:
        model: images in [0, 1] to logits.
        recipe: its sections evaluation and attack, and its seed.
        data: its validation part.

    Returns:
        `clean` and `robust` accuracies, and the `seconds` that it took.

    Raises:
        FloatingPointError: if a logit is NaN or infinite.
    """
    start = time.perf_counter()
    attack = build_evaluation_attack(recipe.evaluation, recipe.attack)
    watch = model.register_forward_hook(_refuse_what_is_no_number)
    try:
        clean, robust = evaluate(
            model,
            data.validation,
            conditions=(Clean(), Attacked(attack=attack)),
            batch_size=recipe.evaluation.batch_size,
            seed=recipe.seed,
            workers=data.workers,
            progress=False,
        ).rows
    finally:
        watch.remove()
    return {"clean": clean.value, "robust": robust.value, "seconds": time.perf_counter() - start}


def _refuse_what_is_no_number(_module: nn.Module, _inputs: Any, logits: Tensor) -> None:
    if not torch.isfinite(logits).all():
        raise FloatingPointError("the model gives logits that are NaN or infinite")
