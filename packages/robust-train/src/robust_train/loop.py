"""The training loop, from top to bottom."""

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from robust_attacks import ImageRandom
from robust_models import save_weights
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import nn

from robust_train import checkpoint
from robust_train.build import build_model, build_optimizer, check_model, wrap_optimizer
from robust_train.checkpoint import ResumeError
from robust_train.config import Recipe
from robust_train.data import load_data
from robust_train.device import choose_device
from robust_train.evaluation import evaluate_held_out
from robust_train.interrupt import Interrupted, watch_interrupts
from robust_train.objectives import Context
from robust_train.origin import check_origin, describe_origin
from robust_train.perturb import build_attack
from robust_train.progress import show
from robust_train.run_folder import Record, RunFolder, open_run
from robust_train.schedule import factor, set_learning_rate, strength
from robust_train.seeds import derive, own_random_state, seed_torch
from robust_train.state import State
from robust_train.update import Losses, Passes
from robust_train.window import Window

logger = logging.getLogger("robust_train")

_PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(RuntimeError):  # noqa: N818 - reads as what happened
    """The loss, a weight or the logits are no longer numbers; the checkpoints from before are kept."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What comes out of a run.

    Attributes:
        model: with the exported weights, in eval mode; it takes images in [0, 1].
        history: one record per epoch; those with an evaluation have `clean` and `robust` of the held-out images.
        best: the record of the best robust accuracy.
        folder: of the run.
        weights: the exported weights, for `robust_models.load_weights`.
        resumed: the update that an earlier start had reached, 0 for a fresh run.
    """

    model: nn.Module
    history: tuple[Record, ...]
    best: Record
    folder: Path
    weights: Path
    resumed: int


def train(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    workers: int = 0,
    resume: bool = True,
    progress: bool | None = None,
) -> Report:
    """Train the model of a recipe, or go on with a run that was interrupted.

    Every random number is a function of the recipe's seed and the position in the run, and a checkpoint holds the rest,
    so an interrupted run that is started again gives the weights of an unbroken one, bit for bit: on the same machine,
    device, versions and number of threads. (Another number of threads adds floating-point numbers in another order.)

    Args:
        recipe: all hyper-parameters, e.g. `recipes.load("digits-fgsm-rs")`.
        out: the folder of the run; the same folder and recipe continue.
        data: the folder of the images, for recipes that train on one.
        device: e.g. "cuda" or "cpu"; None takes a GPU where there is one.
        workers: processes that read image files; the result does not depend on it.
        resume: False refuses a folder that already holds a run.
        progress: show a bar on the standard error stream; None shows it on a terminal only.

    Raises:
        ResumeError: if `out` holds a run of another recipe or other data, and it names the settings; if another process
            trains there; or if the best checkpoint, which is to be exported, is damaged.
        SetupError: if recipe, data and machine do not go together; found before the first update.
        Diverged: if the loss becomes NaN or infinite; it says where, and which checkpoint is the last with finite
            weights.
        Interrupted: (a KeyboardInterrupt) after Ctrl-C or SIGTERM; a checkpoint was written.
    """
    run = open_run(out)
    place = choose_device(device)
    split = load_data(recipe, data, workers)
    origin = describe_origin(recipe, split.fingerprint, place)
    precision = _PRECISIONS[recipe.precision]
    objective = recipe.objective.build(_context(recipe, split.shape, precision))
    updates = recipe.epochs * split.updates

    with own_random_state(place), watch_interrupts() as interruption, contextlib.ExitStack() as stack:
        seed_torch(derive(recipe.seed, "weights"), place)
        model = build_model(recipe).to(place)
        check_model(recipe, model, split.shape, split.smallest_batch)
        module = Losses(model, objective)
        scaler = torch.amp.GradScaler(place.type, enabled=recipe.precision == "fp16")
        optimizer = wrap_optimizer(recipe, build_optimizer(recipe, model), module, scaler, split.updates)
        average = recipe.average and ModelEmaV3(model, recipe.average.decay, use_warmup=recipe.average.warmup)
        final = average.module if average else model  # what is evaluated, selected and exported
        state = State(parts={"model": model, "optimizer": optimizer, "scaler": scaler})
        if average:
            state.parts["average"] = average.module

        # Where an earlier start left off. All settings were found to work, so from here on there is a run.
        stack.enter_context(run.locked())
        if found := checkpoint.newest(run.checkpoints):
            if not resume:
                raise ResumeError(f"{run.path} already holds a run: choose another folder, or resume it")
            check_origin(found[0], found[1]["origin"], origin)
            state.restore(*found, place)
            logger.info(f"{run.path} goes on after update {state.update} of {updates} ({found[0].name})")
        run.describe(recipe, origin["versions"])
        run.keep(state.update, state.history)
        resumed, finished = state.update, len(state.history) == recipe.epochs
        take = stack.enter_context(show(recipe.name, updates, state.update, progress))

        def check() -> None:
            if not state.is_finite():
                raise _diverged(run, state)

        def save(kind: str) -> None:
            check()
            checkpoint.save(run.checkpoints, kind, state.update, {**state.state_dict(), "origin": origin})

        def write(record: Record) -> None:
            run.append(record)
            take(record)

        start = time.perf_counter()
        for epoch in range(len(state.history), recipe.epochs):
            model.train()
            for images, labels in split.batches(epoch, skip=state.update - epoch * split.updates):
                # Every update has its own seed, so nothing depends on what was drawn before.
                lr = recipe.optimizer.lr * factor(recipe.schedule, state.update, updates, split.updates)
                set_learning_rate(optimizer, lr)
                seed_torch(derive(recipe.seed, "update", state.update), place)
                seed = derive(recipe.seed, "attack", state.update)
                images, labels = images.to(place, non_blocking=True), labels.to(place, non_blocking=True)
                ids = torch.arange(len(images), device=place)
                weak = strength(recipe.attack, state.update, split.updates)

                for _ in range(objective.replays):
                    parts = []
                    for x, y, own in zip(
                        *(whole.chunk(recipe.accumulate) for whole in (images, labels, ids)), strict=True
                    ):
                        x_new = objective.perturb(model, x, y, ImageRandom(seed, own), strength=weak)
                        parts.append((x, x_new, y))
                    passes = Passes(module=module, optimizer=optimizer, scaler=scaler, precision=precision, parts=parts)
                    passes.step(recipe.clip)
                    objective.learn(parts)
                metrics = passes.metrics
                state.add(metrics, len(images))
                if average:
                    average.update(model, step=state.update)

                end_of_epoch = state.update == (epoch + 1) * split.updates
                if state.update % recipe.log_every == 0 or end_of_epoch:
                    check()
                    write(_window_record(epoch, state, lr, start))
                    state.window, start = Window(), time.perf_counter()
                if interruption.requested or (state.update % recipe.checkpoint_every == 0 and not end_of_epoch):
                    save("last")
                    checkpoint.prune(run.checkpoints)
                if interruption.requested:  # at the end of an epoch, its evaluation is done when the run goes on
                    done = f"stopped after update {state.update} of {updates}"
                    raise Interrupted(f"{done}; the same call goes on from there ({run.path})")

            record: Record = {"kind": "epoch", "epoch": epoch, "update": state.update, **state.whole.means()}
            if (epoch + 1) % recipe.evaluation.every == 0 or epoch + 1 == recipe.epochs:
                try:
                    record |= evaluate_held_out(final, recipe, split)
                except FloatingPointError as error:
                    raise _diverged(run, state) from error
                if not state.best or record["robust"] > state.best["robust"]:
                    state.best = {name: record[name] for name in ("epoch", "update", "clean", "robust")}
            write(record)
            state.history.append(record)
            state.whole = Window()
            run.write_summary(state.history)
            if state.best.get("update") == state.update:
                save("best")
            save("last")
            checkpoint.prune(run.checkpoints)  # an older best goes after both are written
            start = time.perf_counter()

        if finished:
            logger.info(f"the run in {run.path} was finished already: nothing is left to do")
        if recipe.select == "best":
            final.load_state_dict(_best(run, state)["average" if average else "model"])
        save_weights(final, run.weights)
    history = tuple(state.history)
    return Report(
        model=final.eval(), history=history, best=state.best, folder=run.path, weights=run.weights, resumed=resumed
    )


def _context(recipe: Recipe, shape: tuple[int, int, int], precision: torch.dtype | None) -> Context:
    attack = recipe.attack
    return Context(
        attack=build_attack(attack) if attack else None,
        batch_norm=attack.batch_norm if attack else "eval",
        precision=precision if attack and attack.autocast else None,
        shape=shape,
        classes=recipe.model.num_classes,
    )


def _window_record(epoch: int, state: State, lr: float, start: float) -> Record:
    seconds = time.perf_counter() - start
    speed = {"seconds": seconds, "images_per_second": state.window.images / seconds}
    return {"kind": "window", "epoch": epoch, "update": state.update, "lr": lr, **state.window.means(), **speed}


def _diverged(run: RunFolder, state: State) -> Diverged:
    kept = checkpoint.listed(run.checkpoints)
    last = f"the last checkpoint with finite weights is {kept[-1]}" if kept else "no checkpoint was written yet"
    means = ", ".join(f"{name} {value:.4g}" for name, value in state.window.means().items())
    return Diverged(
        f"the loss, a weight or the logits became NaN or infinite in the updates up to {state.update}"
        f"{f' ({means})' if means else ''}; {last}. "
        "Lower optimizer.lr, set clip, or use bf16 instead of fp16, in a new folder"
    )


def _best(run: RunFolder, state: State) -> dict[str, Any]:
    """The checkpoint of the best evaluation, never another one."""
    update = state.best["update"]
    if found := checkpoint.of_update(run.checkpoints, update):
        return found[1]
    raise ResumeError(
        f"the best checkpoint, {run.checkpoints / f'best-{update:08d}-*.pt'}, is missing or damaged and nothing is "
        "exported: the last weights are whole but not the best; train in a new folder to have the best ones again"
    )
