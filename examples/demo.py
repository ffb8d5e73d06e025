"""The tour: an ordinary and a robust classifier of handwritten digits, under attack and under corruption.

Trains both on 1,347 real digits (scikit-learn's), judges both on 450 others, prints one table, and writes result
files, figures and a report page. `nox -s demo` runs it. Called again, it goes on where it was interrupted.
"""

import argparse
import time
from pathlib import Path

import torch
from rich.console import Console
from robust_attacks import PGD, Linf
from robust_bench import evaluate
from robust_bench.conditions import Attacked, Clean, Corrupted
from robust_bench.corruptions import available
from robust_bench.datasets import digits
from robust_bench.report import write_report
from robust_bench.tables import table
from robust_train import recipes, train
from robust_viz import add_figure, decision_boundaries, write_figures
from torch import nn

RECIPES = {"ordinary": "digits-standard", "robust": "digits-fgsm-rs"}
CONDITIONS = (
    Clean(),
    *(Attacked(attack=PGD(threat=Linf(eps=eps), steps=20, restarts=3)) for eps in (0.05, 0.1, 0.15, 0.2)),
    *(
        Corrupted(corruption=name, severity=level, preset="cifar")
        for name in available(8, 8)
        for level in (1, 2, 3, 4, 5)
    ),
)


def main() -> None:
    """Train, judge, draw, report."""
    parser = argparse.ArgumentParser(description="Train, attack and corrupt two classifiers of handwritten digits.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything that is written")
    out: Path = parser.parse_args().out
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=120)
    started = time.perf_counter()
    torch.set_num_threads(1)  # as fast for images this small, and the same numbers on any number of cores

    models: dict[str, nn.Module] = {}
    results = []
    for name, recipe_name in RECIPES.items():
        recipe = recipes.load(recipe_name)
        console.print(f"Training the {name} model ({recipe.name}, {recipe.epochs} epochs) ...")
        trained = train(recipe, out / name)
        models[name] = trained.model
        console.print(f"Judging the {name} model on 450 digits that it has not seen ...")
        origin = {"spec": recipe.model.name, "weights": trained.weights.name, "recipe": recipe.name}
        result = evaluate(trained.model, "digits", conditions=CONDITIONS, name=name, settings={"model": origin})
        result.save(out / name / "result.json")
        results.append(result)

    write_figures(out, png=True)
    draw_boundaries(models, out)
    page = write_report(out)

    console.print()
    console.print(table(results))
    console.print(f"Report page:  {page}")
    console.print(f"Result files: {out}/*/result.json, weights: {out}/*/model.safetensors")
    console.print(f"Everything took {time.perf_counter() - started:.0f} s.")


def draw_boundaries(models: dict[str, nn.Module], out: Path) -> None:
    """Put a picture of both models' decisions around two test digits into the run folder."""
    images, labels = digits("test").tensors
    boundaries = decision_boundaries(models, images[:2], labels[:2], extent=0.3, norm="linf")
    add_figure(
        out,
        boundaries.figure(class_names=[str(digit) for digit in range(10)]),
        "decision-boundaries",
        "Decision boundaries around two test digits",
        "Each square is a plane of images around one digit: up along the sign of the loss gradient, right along a "
        "random sign direction, both up to 0.3 per pixel (Linf). The larger the region of the right class around the "
        "centre, the harder the model is to fool in this plane.",
        "Maps of the predicted class around two test digits, one column per model, with the boundary of the right "
        "class and the least distance to it.",
        png=True,
    )


if __name__ == "__main__":
    main()
