"""Clean and robust accuracy on the held-out images, which choose the best checkpoint."""

import time
from typing import Any

import torch
from robust_bench import evaluate
from robust_bench.conditions import Attacked, Clean
from robust_bench.world import World
from torch import Tensor, nn

from robust_train.config import Recipe
from robust_train.data import TrainingData
from robust_train.perturb import build_evaluation_attack
from robust_train.processes import ALONE, Processes


def evaluate_held_out(
    model: nn.Module, recipe: Recipe, data: TrainingData, processes: Processes = ALONE
) -> dict[str, float]:
    """Evaluate in eval mode and float32, whatever the precision of the training; modes are as before afterwards.

    Args:
        model: images in [0, 1] to logits.
        recipe: its sections evaluation and attack, and its seed.
        data: its validation part.
        processes: those that train together; the first evaluates, and all get its result.

    Returns:
        `clean` and `robust` accuracies, and the `seconds` that it took.

    Raises:
        FloatingPointError: if a logit is NaN or infinite.
    """
    found: dict[str, float] | str = {}
    if processes.first:
        try:
            found = _evaluate(model, recipe, data)
        except FloatingPointError as error:
            found = str(error)
    found = processes.from_first(found)
    if isinstance(found, str):
        raise FloatingPointError(found)
    return found


def _evaluate(model: nn.Module, recipe: Recipe, data: TrainingData) -> dict[str, float]:
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
            world=World(),
        ).rows
    finally:
        watch.remove()
    return {"clean": clean.value, "robust": robust.value, "seconds": time.perf_counter() - start}


def _refuse_what_is_no_number(_module: nn.Module, _inputs: Any, logits: Tensor) -> None:
    if not torch.isfinite(logits).all():
        raise FloatingPointError("the model gives logits that are NaN or infinite")
