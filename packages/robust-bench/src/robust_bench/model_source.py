"""Models by name: timm's, ours, or a factory in a module of the user."""

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from robust_bench._checks import ModelError
from robust_bench.files import sha256


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """How a model is built and where its weights come from.

    Args:
        spec: "small_cnn_8" or another name that `robust_models.create_model` knows; "timm:resnet18" with timm's
            weights; "zoo:light/..." for an entry of `robust_models.list_models`, with its weights; or
            "package.module:factory" for a function without arguments that returns a torch module taking images in
            [0, 1]. Functions and entries decide about everything but the weights.
        weights: a file for `robust_models.load_weights`; None means the published ones of timm, or none at all.
        pretrained: load timm's published weights, for which the network may be used; None means to do so for "timm:"
            names without a file.
        num_classes: number of logits; None means the data's classes, or the published weights' own.
        in_chans: channels of the images; None means the data's, or the published weights' own.

    Raises:
        ValueError: if a factory or an entry comes with `pretrained`, `num_classes` or `in_chans`, which it would not
            see.
    """

    spec: str
    weights: Path | None = None
    pretrained: bool | None = None
    num_classes: int | None = None
    in_chans: int | None = None

    def __post_init__(self) -> None:
        vain = [name for name in ("pretrained", "num_classes", "in_chans") if getattr(self, name) is not None]
        if vain and self._is_factory:
            raise ValueError(
                f"the function {self.spec!r} builds its model without --{vain[0]}: leave --{' and --'.join(vain)} out, "
                "and set it in the function"
            )
        if vain and self._entry is not None:
            raise ValueError(f"the entry {self.spec!r} of the zoo says so itself: leave --{' and --'.join(vain)} out")

    def build(self, *, num_classes: int, in_chans: int) -> nn.Module:
        """Build the model for data with these classes and channels, and load its weights.

        Raises:
            FileNotFoundError: if the file of weights is missing.
            ValueError: if the name is unknown, there is nothing to load, or the weights do not fit.
            TypeError: if a factory returns something else than a module.
            ModelError: if a factory fails; its own error is the cause.
        """
        if self.weights is not None and not self.weights.is_file():
            raise FileNotFoundError(f"no file of weights {self.weights}")
        prefix, _, rest = self.spec.partition(":")
        if self._is_factory:
            model = _factory(prefix, rest)
        elif self._entry is not None:
            model = self._from_zoo(self._entry)
        else:
            model = self._named(rest or prefix, num_classes=num_classes, in_chans=in_chans)
        if self.weights is not None:
            from robust_models import load_weights  # imported where it is used: timm takes seconds to load

            load_weights(model, self.weights)
        known = None if self._is_factory else _channels(model)
        if known is not None and known != in_chans:
            raise ValueError(
                f"the model {self.spec!r} takes images of {known} channels, the data have {in_chans}: "
                f"give --in_chans {in_chans}, or a model for such data"
            )
        return model

    def describe(self, model: nn.Module, folder: Path) -> dict[str, Any]:
        """Say how to build the same model again; the path of the weights is relative to `folder`."""
        out: dict[str, Any] = {"spec": self.spec, "weights": None, "sha256": None, "pretrained": self._published()}
        if self.weights is not None:
            out["weights"] = Path(os.path.relpath(self.weights, folder)).as_posix()
            out["sha256"] = sha256(self.weights)
        out["num_classes"] = _known(model, "num_classes") if self.num_classes is None else self.num_classes
        out["in_chans"] = self.in_chans
        if self.in_chans is None and not self._is_factory:
            out["in_chans"] = _channels(model)
        out["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        return out

    @property
    def _is_factory(self) -> bool:
        prefix, _, rest = self.spec.partition(":")
        return bool(rest) and prefix not in ("timm", "zoo")

    @property
    def _entry(self) -> str | None:
        return self.spec.removeprefix("zoo:") if self.spec.startswith("zoo:") else None

    def _published(self) -> bool:
        if self.pretrained is not None:
            return self.pretrained
        return self.weights is None and self.spec.startswith(("timm:", "zoo:"))

    def _from_zoo(self, name: str) -> nn.Module:
        import robust_models

        if self.weights is None:
            return robust_models.pretrained(name)
        return robust_models.build_model(robust_models.get_entry(name)).eval()

    def _named(self, name: str, *, num_classes: int, in_chans: int) -> nn.Module:
        from robust_models import create_model

        if self._published():
            return create_model(name, pretrained=True, num_classes=self.num_classes, in_chans=self.in_chans)
        if self.weights is None and self.pretrained is None:
            raise ValueError(
                f"the model {self.spec!r} has no weights: give --weights FILE, or --pretrained false to evaluate it "
                "untrained"
            )
        return create_model(
            name,
            num_classes=num_classes if self.num_classes is None else self.num_classes,
            in_chans=in_chans if self.in_chans is None else self.in_chans,
        )


def _factory(module: str, name: str) -> nn.Module:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # the command, unlike `python -m`, does not look into the current folder
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"cannot import {module!r} for the model {module}:{name}: {error}") from error
    factory: Callable[[], object] | None = getattr(found, name, None)
    if not callable(factory):
        raise ValueError(f"the module {module!r} has no function {name!r} that builds a model")
    try:
        model = factory()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"{module}:{name}() failed, so there is no model to evaluate ({reason})") from error
    if not isinstance(model, nn.Module):
        raise TypeError(f"{module}:{name} must return a torch.nn.Module, got {type(model).__name__}")
    return model


def _known(model: nn.Module, name: str) -> int | None:
    """Look up a number that timm's models carry, also inside a wrapper."""
    values = (getattr(module, name, None) for module in model.modules())
    return next((value for value in values if isinstance(value, int)), None)


def _channels(model: nn.Module) -> int | None:
    """Look up the channels that one of timm's models or ours takes: it says so, or its first convolution does."""
    known = _known(model, "in_chans")
    convolutions = (module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    return next(convolutions, None) if known is None else known
