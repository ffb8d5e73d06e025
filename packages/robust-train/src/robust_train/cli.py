"""The command `robust-train`."""

import argparse
import difflib
import inspect
import logging
import os
import sys
import types
import typing
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from robust_train import recipes
from robust_train._fields import RecipeError, hints, variants
from robust_train.checkpoint import CheckpointWarning
from robust_train.config import Recipe, read_yaml
from robust_train.diverged import Diverged
from robust_train.errors import SetupError
from robust_train.interrupt import Interrupted
from robust_train.loop import Report, train

# Errors that whoever types the command can mend: one line on the standard error stream. Others keep their traceback.
_USER_ERRORS = (SetupError, OSError, Diverged)

_STRICT: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 (the training diverged), 2 (wrong input) or 130 (stopped).

    An error inside of the training leaves with its traceback: it is ours, or the model's.

    Args:
        arguments: those of the command line, without the program's name; None takes them from there.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if unknown := _unknown_option(given):
        return _complain(unknown)
    try:
        settings = _parser().parse_args(given)
    except argparse.ArgumentError as error:
        return _complain(str(error))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)  # it is in the log too
        try:
            match settings.subcommand:
                case "run":
                    _run(settings.run)
                case "recipes":
                    Console().print(_table())
                case "show":
                    sys.stdout.write(recipes.text(settings.show.name))
        except Interrupted as stopped:
            return _complain(str(stopped), code=130)
        except _USER_ERRORS as error:
            return _complain(str(error), code=1 if isinstance(error, Diverged) else 2)
    return 0


class _Lines(logging.Handler):
    """Log lines on the standard error stream of the moment: a progress bar puts its own in place, above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{record.getMessage()}\n")


def _run(settings: Any) -> None:
    recipe = _chosen(settings)
    handler = _Lines()
    logger = logging.getLogger("robust_train")
    level = logger.level
    first = os.environ.get("RANK", "0") == "0"  # under torchrun one process speaks
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if first else logging.WARNING)
    try:
        report = train(recipe, settings.out, data=settings.data, device=settings.device, workers=settings.workers)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    if first:
        _print_summary(report)


def _chosen(settings: Any) -> Recipe:
    """The recipe by name, under the settings of `--config`, under those of the command line."""
    if settings.recipe is None and settings.config is None:
        raise SetupError(f"say what to train: --recipe with one of {', '.join(recipes.names())}, or --config FILE")
    overrides: dict[str, Any] = {}
    if settings.config is None:
        recipe = recipes.load(settings.recipe)
    elif settings.recipe is None:
        recipe = recipes.load(Path(settings.config))
    else:
        recipe = recipes.load(settings.recipe)
        recipe = _over(recipe, Path(settings.config))
    for option in _options():
        text = getattr(settings, option.dest)
        if text is not None:
            overrides[option.key] = option.parse(text)
    return recipe.replace(**overrides)


def _over(recipe: Recipe, file: Path) -> Recipe:
    """The recipe with the settings of a file, which may state a part of it."""
    try:
        return recipe.replace(**_dotted(read_yaml(recipes.text(file))))
    except RecipeError as error:
        raise RecipeError(f"{file}: {error}") from error


def _dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sections as dotted names, so that a file may state a part of a section."""
    dotted: dict[str, Any] = {}
    for key, value in values.items():
        dotted |= (
            {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, Mapping) else {key: value}
        )
    return dotted


@dataclass(frozen=True)
class _Option:
    """A setting of the recipe as an option of the command."""

    key: str
    kind: Any
    meaning: str

    @property
    def dest(self) -> str:
        # A dot would make jsonargparse nest it, below the option --data for example.
        return "set_" + self.key.replace(".", "__")

    def parse(self, text: str) -> Any:
        """Read the text as YAML, except where the setting is a text itself."""
        parts = set(typing.get_args(self.kind)) or {self.kind}  # the kind of a section that may be null is NoneType
        if text == "null":
            return None
        if str in parts:
            return text
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text  # refused by the recipe, with the name of the setting

    def expected(self) -> str:
        """The values that the setting takes, for the help."""
        words = {float: "NUMBER", int: "INT", bool: "BOOL", str: "TEXT", types.NoneType: "null"}

        def describe(kind: Any) -> str:
            inner, origin = typing.get_args(kind), typing.get_origin(kind)
            if origin is typing.Literal:
                return "|".join(map(str, inner))
            if origin is tuple:
                return "[NUMBER,...]"
            return "|".join(map(describe, inner)) if inner else words[kind]

        return describe(self.kind)


def _options() -> list[_Option]:
    """Every setting of a recipe, those of all kinds of a section together."""
    found: dict[str, _Option] = {}
    for name, kind in hints(Recipe).items():
        sections = variants(kind)
        if types.NoneType in typing.get_args(kind) and sections:
            found[name] = _Option(name, types.NoneType, f"null for none: {_meanings(Recipe).get(name, '')}")
        if not sections:
            found[name] = _Option(name, kind, _meanings(Recipe).get(name, ""))
        for section in sections:
            for key, inner in hints(section).items():
                option = _Option(f"{name}.{key}", inner, _meanings(section).get(key, ""))
                if (other := found.get(option.key)) and other.kind != inner:
                    option = _Option(option.key, other.kind | inner if key == "name" else inner, other.meaning)
                found[option.key] = option
    return list(found.values())


def _meanings(kind: type) -> dict[str, str]:
    """What each field means, from the docstrings of its dataclass and of those that it extends."""
    meanings: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        lines = inspect.cleandoc(part.__doc__ or "").partition("Args:\n")[2].splitlines()  # none under python -OO
        name = ""
        for line in lines:
            begun, colon, text = line.strip().partition(": ")
            if line.startswith("    ") and not line.startswith("     ") and colon:
                name, meanings[begun] = begun, text
            elif name:
                meanings[name] += " " + line.strip()
    return meanings


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="robust-train",
        description="Robust training of image models: recipes, exact resume.",
        version=version("robust-train"),
        **_STRICT,
    )
    commands = parser.add_subcommands(required=True)
    run = ArgumentParser(
        description="Train the model of a recipe; the same command goes on after an interruption.",
        usage="robust-train run --out OUT [--recipe NAME] [--config FILE] [--SETTING VALUE ...]",
        **_STRICT,
    )
    run.add_argument("--recipe", type=str, help="a name that `robust-train recipes` lists, or a YAML file")
    run.add_argument("--config", type=str, help="a YAML file: settings over those of --recipe, or alone a whole recipe")
    run.add_argument("--out", type=str, required=True, help="the folder of the run; the same folder continues")
    run.add_argument("--data", type=str, help="the folder of the images, for recipes that train on one")
    run.add_argument("--device", type=str, help="e.g. cuda or cpu; by default a GPU where there is one")
    run.add_argument("--workers", type=int, default=0, help="processes that read image files")
    group = run.add_argument_group("settings of the recipe")
    for option in _options():
        help_text = option.meaning.replace("%", "%%").replace("`", "")
        group.add_argument(f"--{option.key}", dest=option.dest, type=str, metavar=option.expected(), help=help_text)
    commands.add_subcommand("run", run, help="train, or go on training")
    listing = ArgumentParser(description="List the recipes in the package.", **_STRICT)
    commands.add_subcommand("recipes", listing, help="list the recipes")
    show = ArgumentParser(description="Print a recipe as YAML.", **_STRICT)
    show.add_argument("name", type=str, help="a name that `robust-train recipes` lists, or a YAML file")
    commands.add_subcommand("show", show, help="print a recipe as YAML")
    return parser


def _table() -> Table:
    table = Table()
    for heading in ("name", "model", "data", "objective", "attack", "epochs"):
        table.add_column(heading, no_wrap=heading == "name")
    for name in recipes.names():
        recipe = recipes.load(name)
        attack = recipe.attack
        described = f"{attack.name} {attack.norm} {attack.eps:.4g}" if attack else "-"
        cells = (recipe.model.name, recipe.data.name, recipe.objective.name, described, str(recipe.epochs))
        table.add_row(name, *cells)
    return table


def _print_summary(report: Report) -> None:
    table = Table()
    for heading in ("held-out images", "epoch", "clean", "robust"):
        table.add_column(heading)
    for title, record in (("last", report.history[-1]), ("best", report.best)):
        table.add_row(title, str(record["epoch"]), f"{record['clean']:.1%}", f"{record['robust']:.1%}")
    console = Console()
    console.print(table)
    console.print(f"weights: {report.weights}", soft_wrap=True, markup=False, highlight=False)


def _complain(message: str, code: int = 2) -> int:
    """Print a message as one line on the standard error stream and return the exit code."""
    sys.stderr.write(f"robust-train: {' '.join(message.split())}\n")
    return code


def _unknown_option(arguments: Sequence[str]) -> str | None:
    """A message about the first option that the sub-command does not have, with the nearest ones that it has.

    Asked before jsonargparse, which takes `--attack.ep` for a part of the option `--attack`.
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    own = {"run": ("--recipe", "--config", "--out", "--data", "--device", "--workers")}.get(command, ())
    known = [*own, *(f"--{option.key}" for option in _options() if command == "run")]
    for argument in arguments[arguments.index(command) :] if command else ():
        given = argument.partition("=")[0]
        if given.startswith("--") and given not in (*known, "--", "--help"):
            longer = [option for option in known if option.startswith(given)]
            near = longer[:3] or difflib.get_close_matches(given, known, n=3)
            hint = f"did you mean {', '.join(near)}? " if near else ""
            return f"there is no option {given}: {hint}robust-train {command} --help lists all"
    return None
