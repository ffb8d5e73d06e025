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
from robust_train.build import build_model, build_optimizer
from robust_train.config import Recipe
from robust_train.data import load_data
from robust_train.device import choose_device
from robust_train.evaluation import evaluate_held_out
from robust_train.interrupt import Interrupted, watch_interrupts
from robust_train.objectives import build_objective
from robust_train.progress import show
from robust_train.run_folder import Record, RunFolder, Window, open_run, prepare
from robust_train.schedule import factor, set_learning_rate
from robust_train.seeds import derive, own_random_state, seed_torch

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
        ResumeError: if `out` holds a run of another recipe or other data; it names the settings.
        ValueError: if the data do not agree with the recipe.
        Diverged: if the loss becomes NaN or infinite; it says where, and which checkpoint is the last with finite
            weights.
        Interrupted: (a KeyboardInterrupt) after Ctrl-C or SIGTERM; a checkpoint was written.
    """
    run = open_run(out, recipe, resume)
    place = choose_device(device)
    split = load_data(recipe, data, workers)
    precision = _PRECISIONS[recipe.precision]
    objective = build_objective(recipe, precision)
    updates = recipe.epochs * split.updates

    with own_random_state(place), watch_interrupts() as interruption, contextlib.ExitStack() as stack:
        seed_torch(derive(recipe.seed, "weights"), place)
        model = build_model(recipe).to(place)
        optimizer = build_optimizer(recipe, model)
        scaler = torch.amp.GradScaler(place.type, enabled=recipe.precision == "fp16")
        average = recipe.average and ModelEmaV3(model, recipe.average.decay, use_warmup=recipe.average.warmup)
        final = average.module if average else model  # what is evaluated, selected and exported

        prepare(run, recipe, place)  # from here on there is a run: all settings were found to work

        # Where an earlier start left off.
        parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scaler": scaler}
        parts |= {"average": average.module} if average else {}
        window, whole, update = Window(), Window(), 0  # sums since the last record, and of the epoch
        best: Record = {}
        if found := checkpoint.newest(run.checkpoints):
            path, state = found
            checkpoint.restore(path, state, parts, split.sizes)
            window.load_state_dict(state["window"], place)
            whole.load_state_dict(state["whole"], place)
            update, best = state["update"], state["best"]
            logger.info(f"{run.path} goes on after update {update} of {updates} ({path.name})")
        resumed, records = update, run.keep_until(update)
        take = stack.enter_context(show(recipe.name, updates, update, progress))

        def check() -> None:
            if not (window.is_finite() and all(torch.isfinite(weight).all() for weight in model.parameters())):
                raise _diverged(run, update, window)

        def save(kind: str) -> None:
            check()
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"window": window.state_dict(), "whole": whole.state_dict()}
            state |= {"update": update, "best": best, "images": split.sizes}
            checkpoint.save(run.checkpoints, kind, update, state)
            checkpoint.prune(run.checkpoints)

        def write(record: Record) -> None:
            records.append(record)
            run.append(record)
            take(record)

        start = time.perf_counter()
        for epoch in range(update // split.updates, recipe.epochs):
            model.train()
            for images, labels in split.batches(epoch, skip=update - epoch * split.updates):
                # Every update has its own seed, so nothing depends on what was drawn before.
                lr = recipe.optimizer.lr * factor(recipe.schedule, update, updates, split.updates)
                set_learning_rate(optimizer, lr)
                seed_torch(derive(recipe.seed, "update", update), place)
                random = ImageRandom(derive(recipe.seed, "attack", update), torch.arange(len(images), device=place))
                images, labels = images.to(place, non_blocking=True), labels.to(place, non_blocking=True)

                perturbed = objective.perturb(model, images, labels, random)
                with torch.autocast(place.type, precision, enabled=precision is not None):
                    loss, metrics = objective.loss(model, images, perturbed, labels)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(scaler.scale(loss))
                if recipe.clip is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                scaler.step(optimizer)
                scaler.update()
                update += 1
                if average:
                    average.update(model, step=update)
                for sums in (window, whole):
                    sums.add(metrics, len(images))

                end_of_epoch = update == (epoch + 1) * split.updates
                if update % recipe.log_every == 0 or end_of_epoch:
                    if not window.is_finite():
                        raise _diverged(run, update, window)
                    write(_window_record(epoch, update, lr, window, start))
                    window, start = Window(), time.perf_counter()
                if not end_of_epoch and (update % recipe.checkpoint_every == 0 or interruption.requested):
                    save("last")
                    if interruption.requested:
                        raise Interrupted(_stopped(run, update, updates))

            record: Record = {"kind": "epoch", "epoch": epoch, "update": update, **whole.means()}
            whole = Window()
            check()
            if (epoch + 1) % recipe.evaluation.every == 0 or epoch + 1 == recipe.epochs:
                try:
                    record |= evaluate_held_out(final, recipe, split)
                except FloatingPointError as error:
                    raise _diverged(run, update, window) from error
                if not best or record["robust"] > best["robust"]:
                    best = {name: record[name] for name in ("epoch", "update", "clean", "robust")}
            write(record)
            run.write_summary([one for one in records if one["kind"] == "epoch"])
            if best.get("update") == update:
                save("best")
            save("last")
            start = time.perf_counter()
            if interruption.requested and update < updates:
                raise Interrupted(_stopped(run, update, updates))

        if resumed == updates:
            logger.info(f"the run in {run.path} was finished already: nothing is left to do")
        return _finish(run, recipe, final, records, best, resumed)


def _window_record(epoch: int, update: int, lr: float, window: Window, start: float) -> Record:
    seconds = time.perf_counter() - start
    speed = {"seconds": seconds, "images_per_second": window.images / seconds}
    return {"kind": "window", "epoch": epoch, "update": update, "lr": lr, **window.means(), **speed}


def _diverged(run: RunFolder, update: int, window: Window) -> Diverged:
    kept = checkpoint.listed(run.checkpoints)
    last = f"the last checkpoint with finite weights is {kept[-1]}" if kept else "no checkpoint was written yet"
    means = ", ".join(f"{name} {value:.4g}" for name, value in window.means().items())
    return Diverged(
        f"the loss, a weight or the logits became NaN or infinite in the updates up to "
        f"{update}{f' ({means})' if means else ''}; "
        f"{last}. "
        "Lower optimizer.lr, set clip, or use bf16 instead of fp16, in a new folder"
    )


def _stopped(run: RunFolder, update: int, updates: int) -> str:
    return f"stopped after update {update} of {updates}; the same call goes on from there ({run.path})"


def _finish(
    run: RunFolder, recipe: Recipe, final: nn.Module, records: list[Record], best: Record, resumed: int
) -> Report:
    """Export the weights that the recipe selects."""
    if recipe.select == "best" and (found := checkpoint.newest(run.checkpoints, kinds=["best"])):
        final.load_state_dict(found[1]["average" if recipe.average else "model"])
    save_weights(final, run.weights)
    history = tuple(record for record in records if record["kind"] == "epoch")
    return Report(model=final.eval(), history=history, best=best, folder=run.path, weights=run.weights, resumed=resumed)
