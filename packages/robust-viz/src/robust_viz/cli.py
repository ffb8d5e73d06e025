"""The command `robust-viz`."""

import argparse
import contextlib
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from jsonargparse import ArgumentParser, Namespace
from robust_attacks import ImageRandom
from torch import nn

from robust_viz._text import printable
from robust_viz.boundary import DecisionBoundary, decision_boundary
from robust_viz.figures import add_figure, write_figures
from robust_viz.images import load_image
from robust_viz.plane import Norm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0: all was written; 2: a mistake of the user, told in one line on the standard error stream; 130: Ctrl-C.
    """
    try:
        settings = _parser().parse_args(None if arguments is None else list(arguments))
        with _warnings_as_lines():
            {"figures": _figures, "boundary": _boundary}[settings.command](settings[settings.command])
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except (ValueError, TypeError, OSError, argparse.ArgumentError) as error:
        _say(str(error) or type(error).__name__)
        return 2
    return 0


def _say(message: str) -> None:
    """Write one line to the standard error stream."""
    sys.stderr.write(f"robust-viz: {' '.join(printable(message).split())}\n")


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each warning as a line; those of letters that the font lacks, one per letter and drawing, as one in all."""
    missing: dict[str, None] = {}

    def show(message: Warning | str, *_: object, **__: object) -> None:
        glyph = re.match(r"Glyph (\d+) ", str(message))
        if glyph:
            missing[chr(int(glyph[1]))] = None
        else:
            _say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=r"Glyph \d+ ", category=UserWarning)
        warnings.showwarning = show
        try:
            yield
        finally:
            if missing:
                _say(f"warning: the font lacks {' '.join(missing)}: they appear as boxes in the pictures")


def _subparser(description: str) -> ArgumentParser:
    return ArgumentParser(description=description, allow_abbrev=False, exit_on_error=False)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="robust-viz",
        description="See why an image model is robust.",
        version=version("robust-viz"),
        allow_abbrev=False,
        exit_on_error=False,
    )
    commands = parser.add_subcommands(dest="command", required=True)
    figures = _subparser("Draw all figures that the results in a run folder allow, into RUN/figures.")
    figures.add_argument("--config", action="config", help="a YAML file with these settings")
    figures.add_argument("run", type=Path, help="the folder that `robust-bench run --out` has written")
    figures.add_argument("--png", type=bool, default=False, nargs="?", const=True, help="write PNG files as well")
    commands.add_subcommand("figures", figures, help="draw the figures of a run")
    boundary = _subparser("Draw the decision boundary of a model around images, into OUT/figures.")
    boundary.add_argument("--config", action="config", help="a YAML file with these settings")
    boundary.add_argument("images", nargs="+", type=Path, help="image files")
    boundary.add_argument(
        "--model",
        type=str,
        required=True,
        help="a timm model, e.g. resnet18 or timm:resnet18, or small_cnn_8, small_cnn_32",
    )
    boundary.add_argument("--out", type=Path, required=True, help="a folder; a run folder has the pictures reported")
    boundary.add_argument("--weights", type=Path | None, default=None, help="a .safetensors or .pt file")
    boundary.add_argument("--pretrained", type=bool, default=False, nargs="?", const=True, help="take timm's weights")
    boundary.add_argument("--num_classes", type=int | None, default=None, help="if not the model's own")
    boundary.add_argument("--label", type=int | None, default=None, help="the right class; else the prediction")
    boundary.add_argument("--norm", type=Norm, default="l2", help=f"one of {', '.join(get_args(Norm))}")
    boundary.add_argument("--extent", type=float | None, default=None, help="half the side of the square, in the norm")
    boundary.add_argument("--points", type=int, default=61, help="points of the map per side")
    boundary.add_argument("--clip", type=bool, default=True, help="false shows the model what lies outside [0, 1]")
    boundary.add_argument("--seed", type=int, default=0, help="of the random direction")
    boundary.add_argument(
        "--device", type=str | None, default=None, help="cpu, cuda, ...; by default a GPU if there is one"
    )
    boundary.add_argument("--png", type=bool, default=False, nargs="?", const=True, help="write PNG files as well")
    commands.add_subcommand("boundary", boundary, help="draw the decision boundary around images")
    return parser


def _figures(settings: Namespace) -> None:
    for path in write_figures(settings.run, png=settings.png):
        sys.stdout.write(f"{path}\n")


def _boundary(settings: Namespace) -> None:
    from robust_models import create_model, load_weights  # here, because timm takes seconds that `figures` can spare

    if settings.weights is None and not settings.pretrained:
        raise ValueError("an untrained model has no boundary worth a look: give --weights FILE, or --pretrained")
    names = _names(settings.images)
    spec = settings.model.removeprefix("timm:")
    options: dict[str, Any] = {} if settings.num_classes is None else {"num_classes": settings.num_classes}
    model = create_model(spec, pretrained=settings.pretrained, **options)
    if settings.weights is not None:
        load_weights(model, settings.weights)
    device = _device(settings.device)
    model = model.to(device).eval()
    channels, height, width = _input_size(model)
    images = [load_image(path, (height, width), channels) for path in settings.images]
    for path, name, image in zip(settings.images, names, images, strict=True):
        found = decision_boundary(
            model,
            image.to(device),
            settings.label,
            extent=settings.extent,
            points=settings.points,
            norm=settings.norm,
            clip=settings.clip,
            random=ImageRandom(settings.seed),
        )
        title = f"Decision boundary of {spec} around {path.stem}"
        caption, alt = describe(found, spec)
        written = add_figure(settings.out, found.figure(title=title), name, title, caption, alt, png=settings.png)
        sys.stdout.write(f"{written}\n")


def _names(images: Sequence[Path]) -> list[str]:
    """Names of the pictures, after the images; each must be another file."""
    sources: dict[str, Path] = {}
    for path in images:
        name = "boundary-" + "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in path.stem)
        if name in sources:
            raise ValueError(
                f"the pictures of {sources[name]} and {path} would both be {name}.svg, since they are named after the "
                "letters A-Z and digits of the images: rename one, or draw them into two folders"
            )
        sources[name] = path
    return list(sources)


def describe(boundary: DecisionBoundary, model: str) -> tuple[str, str]:
    """Caption and text alternative of a decision boundary."""
    norm = "L2" if boundary.norm == "l2" else "Linf"
    least = (
        f"the class is lost at {norm} distance {boundary.least:.3g}"
        if boundary.least <= boundary.extent
        else f"the class is kept everywhere up to {norm} distance {boundary.extent:.3g}"
    )
    caption = (
        f"Classes that {model} predicts in a plane of images around one of class {boundary.label}: upwards the loss "
        f"rises fastest, sideways is a random direction (seed {boundary.seed}), {norm} lengths up to "
        f"{boundary.extent:.3g}{', pixels clipped to [0, 1]' if boundary.clip else ''}. In this plane {least}."
    )
    alt = (
        f"Map of predicted classes: {boundary.share:.0%} of the square are of class {boundary.label}, "
        f"{boundary.classes_met} classes are met, and {least}."
    )
    return caption, alt


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _input_size(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width that a model was made for, from its timm configuration."""
    for module in model.modules():
        config = getattr(module, "pretrained_cfg", None)
        if config is not None:
            channels, height, width = config["input_size"]
            return int(channels), int(height), int(width)
    raise ValueError(f"{type(model).__name__} does not say what size of images it takes")
