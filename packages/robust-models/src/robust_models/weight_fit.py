"""How weights from a file compare with those that a model wants."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from robust_models.normalize import NormalizedModel


@dataclass(frozen=True, kw_only=True)
class WeightFit:
    """The comparison of `found` weights with the `target` state dict, name by name.

    Attributes:
        target: the state dict of the model.
        found: the weights of the file, by the names of the model.
        optional: names that may be missing.
        head: beginnings of the names of the classifier where the model may keep its own, else empty.
        objection: what the filter of the architecture has against the weights, "" if nothing.
    """

    target: Mapping[str, Tensor]
    found: Mapping[str, Tensor]
    optional: frozenset[str] = frozenset()
    head: tuple[str, ...] = ()
    objection: str = ""

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Names of the model that the file does not have."""
        return tuple(name for name in self.target if name not in self.found and name not in self.optional)

    @cached_property
    def unexpected(self) -> tuple[str, ...]:
        """Names in the file that the model does not have."""
        return tuple(name for name in self.found if name not in self.target)

    @cached_property
    def mismatched(self) -> tuple[str, ...]:
        """Names whose shape or kind of number differs."""
        return tuple(name for name in self.found if name in self.target and not self._same_kind(name))

    @cached_property
    def fitting(self) -> dict[str, Tensor]:
        """What can be loaded."""
        return {name: value for name, value in self.found.items() if name in self.target and self._same_kind(name)}

    @property
    def complete(self) -> bool:
        """Whether everything fits, the classifier aside if it may be new."""
        missing = (name for name in self.missing if not name.endswith(".num_batches_tracked"))  # old files have none
        problems = (*missing, *self.unexpected, *self.mismatched)
        return all(name.startswith(self.head) for name in problems) if self.head else not problems

    def message(self, file: Path, model: nn.Module) -> str:
        """Say what does not fit, and what to do."""
        network = model.unwrap() if isinstance(model, NormalizedModel) else model
        lines = [f"{file} does not fit this {type(network).__name__}; nothing was loaded."]
        if self.mismatched:
            shapes = [
                f"{name} is {tuple(self.found[name].shape)} in the file and {tuple(self.target[name].shape)} in the "
                "model"
                for name in self.mismatched[:3]
            ]
            lines.append(
                f"{len(self.mismatched)} entries differ in shape or kind: "
                f"{'; '.join(shapes)}{'; ...' if len(self.mismatched) > 3 else ''}."
            )
        for names, what in ((self.missing, "missing from the file"), (self.unexpected, "unknown to the model")):
            if names:
                more = ", ..." if len(names) > 4 else ""
                lines.append(f"{len(names)} entries are {what}: {', '.join(names[:4])}{more}.")
        lines.append(f"{self.objection}." if self.objection else self._advice())
        return " ".join(lines)

    def _advice(self) -> str:
        """What to do about it."""
        only_shapes = self.mismatched and not self.missing and not self.unexpected
        if only_shapes and all(self.target[each].shape[:1] != self.found[each].shape[:1] for each in self.mismatched):
            classes = self.found[self.mismatched[-1]].shape[:1]
            return (
                f"If only the classifier differs, build the model with num_classes={classes[0] if classes else '...'}, "
                "or pass new_head=True to keep the new one."
            )
        return (
            "Build the model that the file was made for (name, in_chans, img_size, num_classes), or pass "
            "strict=False to load what fits."
        )

    def _same_kind(self, name: str) -> bool:
        value, wanted = self.found[name], self.target[name]
        return value.shape == wanted.shape and value.is_floating_point() == wanted.is_floating_point()


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """The beginnings of the names of the last layer, as timm's configuration gives them; empty if it is not known."""
    named = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
