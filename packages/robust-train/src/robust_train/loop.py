"""The training loop, from top to bottom."""

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from robust_attacks import ImageRandom
from torch import nn

from robust_train import checkpoint
from robust_train.build import (
    build_average,
    build_model,
    build_objective,
    build_optimizer,
    check_model,
    place_model,
    wrap_optimizer,
)
from robust_train.checkpoint import ResumeError
from robust_train.config import Recipe
from robust_train.data import load_data
from robust_train.device import choose_device, send
from robust_train.diverged import diverged
from robust_train.evaluation import evaluate_held_out
from robust_train.interrupt import Interrupted, watch_interrupts
from robust_train.origin import check_origin, describe_origin
from robust_train.processes import join
from robust_train.progress import show
from robust_train.run_folder import Record, open_run
from robust_train.schedule import factor, set_learning_rate, strength
from robust_train.seeds import derive, own_random_state, seed_torch
from robust_train.state import State, restore_buffers
from robust_train.update import Losses, Passes
from robust_train.window import Window

logger = logging.getLogger("robust_train")

_PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    place = choose_device(device)
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(join(place))
        run = open_run(out, writes=processes.first)
        split = load_data(recipe, data, workers)
        origin = describe_origin(recipe, split.fingerprint, place, processes.size)
        precision = _PRECISIONS[recipe.precision]
        objective = build_objective(recipe, split.shape, precision)
        updates = recipe.epochs * split.updates
        stack.enter_context(own_random_state(place))
        interruption = stack.enter_context(watch_interrupts())

        seed_torch(derive(recipe.seed, "weights"), place)
        model = build_model(recipe)
        objective.convert(model)
        model = place_model(recipe, model, place)
        processes.check(split.smallest_batch // recipe.accumulate)
        check_model(recipe, model, split.shape, split.smallest_batch // recipe.accumulate // processes.size)
        module = processes.wrap(Losses(model, objective))
        scaler = torch.amp.GradScaler(place.type, enabled=recipe.precision == "fp16")
        steps = split.updates * objective.replays  # of the optimizer, per epoch
        optimizer = wrap_optimizer(recipe, build_optimizer(recipe, model), module, scaler, steps)
        average = build_average(recipe, model, recipe.epochs * steps)
        state = State(parts={"model": model, "optimizer": optimizer, "scaler": scaler})
        if average:
            state.parts["average"] = average

        # Where an earlier start left off. All settings were found to work, so from here on there is a run.
        stack.enter_context(run.locked())
        if found := processes.from_first(checkpoint.newest(run.checkpoints) if processes.first else None):
            if not resume:
                raise ResumeError(f"{run.path} already holds a run: choose another folder, or resume it")
            path, saved = found
            check_origin(path, saved["origin"], origin)
            state.restore(path, saved, place)
            if not processes.first:  # sums in a checkpoint are those of all processes, and the first goes on with them
                state.window, state.whole = Window(), Window()
            own = saved["ranks"][processes.rank % len(saved["ranks"])]
            objective.load_state_dict(own["objective"])
            restore_buffers(model, own["buffers"])
            logger.info(f"{run.path} goes on after update {state.update} of {updates} ({path.name})")
        run.describe(recipe, origin["versions"])
        run.keep(state.update, state.history)
        resumed, finished = state.update, len(state.history) == recipe.epochs
        take = stack.enter_context(show(recipe.name, updates, state.update, progress if processes.first else False))

        def check() -> None:
            state.gather(processes)
            if processes.agree(not state.is_finite()):
                raise diverged(run, state)

        def save(kind: str) -> None:
            check()
            buffers = dict(model.named_buffers()) if processes.size > 1 else {}  # batch norms see what the rank sees
            ranks = processes.gathered({"objective": objective.state_dict(), "buffers": buffers})
            run.save(kind, state.update, {**state.state_dict(), "ranks": ranks, "origin": origin})

        def write(record: Record) -> None:
            run.append(record)
            if processes.first:
                take(record)

        start = time.perf_counter()
        for epoch in range(len(state.history), recipe.epochs):
            model.train()
            skip = state.update - epoch * split.updates
            for images, labels, ids in split.batches(epoch, skip, processes):
                # Every update has its own seed, so nothing depends on what was drawn before.
                lr = recipe.optimizer.lr * factor(recipe.schedule, state.update, updates, split.updates)
                set_learning_rate(optimizer, lr)
                own = () if processes.first else (processes.rank,)
                seed_torch(derive(recipe.seed, "update", state.update, *own), place)
                seed = derive(recipe.seed, "attack", state.update)
                weak = strength(recipe.attack, state.update, split.updates)
                batch = send((images, labels, ids), place, recipe.channels_last)

                for replay in range(objective.replays):
                    parts = []
                    for x, y, i in zip(*(whole.tensor_split(recipe.accumulate) for whole in batch), strict=True):
                        random = ImageRandom(derive(seed, replay) if replay else seed, i)
                        parts.append((x, objective.perturb(model, x, y, random, strength=weak), y))
                    passes = Passes(
                        module=module,
                        optimizer=optimizer,
                        scaler=scaler,
                        precision=precision,
                        parts=parts,
                        images=split.size_of(state.update) / processes.size,
                    )
                    passes.step(recipe.clip)
                    objective.learn(parts)
                    if average:
                        average.update()
                state.add(passes.metrics, len(images))

                end_of_epoch = state.update == (epoch + 1) * split.updates
                if state.update % recipe.log_every == 0 or end_of_epoch:
                    check()
                    write(_window_record(epoch, state, lr, start))
                    state.window, start = Window(), time.perf_counter()
                stop = processes.agree(interruption.requested)
                if stop or (state.update % recipe.checkpoint_every == 0 and not end_of_epoch):
                    save("last")
                    run.prune()
                if stop:  # at the end of an epoch, its evaluation is done when the run goes on
                    done = f"stopped after update {state.update} of {updates}"
                    raise Interrupted(f"{done}; the same call goes on from there ({run.path})")

            processes.average_statistics(model)
            if average and processes.size > 1:
                with average.applied():  # it has statistics of its own
                    processes.average_statistics(model)
            record: Record = {"kind": "epoch", "epoch": epoch, "update": state.update, **state.whole.means()}
            if (epoch + 1) % recipe.evaluation.every == 0 or epoch + 1 == recipe.epochs:
                try:
                    with average.applied() if average else contextlib.nullcontext():
                        record |= evaluate_held_out(model, recipe, split, processes)
                except FloatingPointError as error:
                    raise diverged(run, state) from error
                if not state.best or record["robust"] > state.best["robust"]:
                    state.best = {name: record[name] for name in ("epoch", "update", "clean", "robust")}
            record = processes.from_first(record)
            write(record)
            state.history.append(record)
            state.whole = Window()
            run.write_summary(state.history)
            if state.best.get("update") == state.update:
                save("best")
            save("last")
            run.prune()  # an older best goes after both are written
            start = time.perf_counter()

        if finished:
            logger.info(f"the run in {run.path} was finished already: nothing is left to do")
        if recipe.select == "best":
            best = processes.from_first(run.best(state.best["update"]) if processes.first else None)
            model.load_state_dict(best["model"])
            if average:
                average.load_state_dict(best["average"])
        if average:
            model.load_state_dict(average.model_state_dict())
        run.export(model)
        processes.agree(False)  # nobody goes on before the files are there
    history = tuple(state.history)
    return Report(
        model=model.eval(), history=history, best=state.best, folder=run.path, weights=run.weights, resumed=resumed
    )


def _window_record(epoch: int, state: State, lr: float, start: float) -> Record:
    seconds = time.perf_counter() - start
    speed = {"seconds": seconds, "images_per_second": state.window.images / seconds}
    return {"kind": "window", "epoch": epoch, "update": state.update, "lr": lr, **state.window.means(), **speed}
