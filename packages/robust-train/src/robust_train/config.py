"""The settings of a training run as one tree of frozen dataclasses: a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from robust_train._fields import RecipeError, build, differences, hints, name_of, plain, variants
from robust_train.objectives import ObjectiveSettings
from robust_train.settings import (
    AttackSettings,
    AverageSettings,
    ConstantSchedule,
    CosineSchedule,
    DigitsData,
    EvaluationSettings,
    FolderData,
    LookSAMSettings,
    ModelSettings,
    OneCycleSchedule,
    OptimizerSettings,
    SAMSettings,
    SharpnessSettings,
    StepSchedule,
    require,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete set of training hyper-parameters: what is in here, and the data, decide the result.

    Args:
        name: of the recipe.
        source: where the values come from.
        expected: what to expect from it.
        model: what is trained.
        data: on which images.
        objective: what a step minimises.
        attack: how the images are attacked; None for objectives that do not.
        optimizer: how the weights move.
        sharpness: an optimizer around it that looks at the loss around the weights; None for none.
        schedule: how the learning rate moves.
        epochs: passes over the training images.
        batch_size: images per update.
        accumulate: parts of a batch that are passed through the model one after the other, to save memory.
        precision: "float32", or automatic mixed precision with "bf16" or "fp16" (the latter with loss scaling).
        channels_last: keep images and convolutions in the memory layout that is faster for most networks.
        compile: compile the model with torch.compile.
        sync_batch_norm: let batch norms see the whole batch of several GPUs; otherwise each sees its own, and running
            statistics are averaged at the end of an epoch.
        clip: highest norm of the gradient; None for no clipping.
        average: averaging of the weights; None for none.
        evaluation: of the held-out images.
        select: which weights are exported: those of the "last" epoch, or of the "best" robust accuracy on held-out
            images.
        seed: of everything that is random.
        log_every: updates between lines of metrics.jsonl; the end of an epoch always writes one.
        checkpoint_every: updates between checkpoints; the end of an epoch always writes one.
    """

    name: str
    source: str
    expected: str
    model: ModelSettings
    data: DigitsData | FolderData
    objective: ObjectiveSettings
    attack: AttackSettings | None
    optimizer: OptimizerSettings
    sharpness: SharpnessSettings | None
    schedule: OneCycleSchedule | CosineSchedule | StepSchedule | ConstantSchedule
    epochs: int
    batch_size: int
    accumulate: int
    precision: Literal["float32", "bf16", "fp16"]
    channels_last: bool
    compile: bool
    sync_batch_norm: bool
    clip: float | None
    average: AverageSettings | None
    evaluation: EvaluationSettings
    select: Literal["last", "best"]
    seed: int
    log_every: int
    checkpoint_every: int

    def __post_init__(self) -> None:
        for setting, kind in hints(Recipe).items():
            value = getattr(self, setting)
            valid = build(kind, plain(value), setting)
            if valid != value:
                raise RecipeError(f"{setting} must be {valid!r}, got {value!r}: Recipe.replace takes plain values")
        for setting in ("epochs", "batch_size", "accumulate", "log_every", "checkpoint_every"):
            number = getattr(self, setting)
            require(number >= 1, f"{setting} must be at least 1, got {number}")
        require(self.seed >= 0, f"seed must not be negative, got {self.seed}")
        require(self.clip is None or self.clip > 0, f"clip must be positive or null, got {self.clip}")
        require(self.objective.attacks == (self.attack is not None), _attack_message(self.objective))
        parts = f"accumulate must be at most batch_size ({self.batch_size}), got {self.accumulate}"
        require(self.accumulate <= self.batch_size, parts)
        whole = self.accumulate == 1 or self.sharpness is None or self.sharpness.name != "esam"
        require(
            whole, f"accumulate must be 1 with sharpness esam, which chooses among all images, got {self.accumulate}"
        )
        again = self.objective.name == "advprop" and self.model.grad_checkpointing
        require(
            not again, "model.grad_checkpointing must be false with advprop, whose batch norms differ from pass to pass"
        )
        _check_sharpness(self)
        _check_length(self.schedule, self.epochs)
        known = self.attack is not None or self.evaluation.eps is not None
        require(
            known, "evaluation.norm and evaluation.eps must be given: there is no training attack to take them from"
        )
        precision_used = self.attack is None or not self.attack.autocast or self.precision != "float32"
        require(precision_used, "attack.autocast has no effect in float32: set it to false")

    def replace(self, **changes: Any) -> "Recipe":
        """Return the recipe with some settings changed, by dotted names; a section may be plain values or typed.

        Another `name` of a section (as `{"attack.name": "pgd"}`) keeps the keys that both kinds have and needs the
        rest.

        Raises:
            RecipeError: if a name is unknown or a value is not valid.

        Examples:
            >>> from robust_train import recipes
            >>> recipes.load("digits-fgsm-rs").replace(**{"attack.eps": 0.1, "epochs": 5}).attack.eps
            0.1
        """
        values = plain(self)
        kinds = hints(Recipe)
        # The name of a section comes first: it decides which other keys the section has.
        for key, value in sorted(changes.items(), key=lambda change: not change[0].endswith(".name")):
            section, _, setting = key.partition(".")
            if section not in kinds:
                build(Recipe, {section: value})  # raises, with the keys that there are
            if setting and not variants(kinds[section]):
                raise RecipeError(f"{section} is a plain setting and has no {setting!r} inside: set {section} itself")
            if not setting:
                values[section] = plain(value)
                continue
            if values[section] is None:
                values[section] = {}
            if setting == "name" and len(variants(kinds[section])) > 1:
                values[section] = _shared(kinds[section], values[section], value)
            values[section] = {**values[section], setting: plain(value)}
        recipe: Recipe = build(Recipe, values)
        return recipe

    def differences(self, other: "Recipe") -> dict[str, tuple[Any, Any]]:
        """Dotted names of the settings that differ, with the value here and there (None where there is none)."""
        return differences(plain(self), plain(other))

    def to_yaml(self) -> str:
        """The recipe as YAML, in the order of the fields; `Recipe.from_yaml` reads it back without loss."""
        text: str = yaml.safe_dump(plain(self), sort_keys=False, allow_unicode=True, width=120)
        return text

    @classmethod
    def from_yaml(cls, text: str) -> "Recipe":
        """Read a recipe from YAML.

        Raises:
            RecipeError: if the text is not YAML, or not a complete and valid recipe.
        """
        recipe: Recipe = build(cls, read_yaml(text))
        return recipe


def read_yaml(text: str) -> Mapping[str, Any]:
    """Read a mapping from YAML; a key that stands twice is an error, not the last one's victory.

    Raises:
        RecipeError: if the text is not YAML, is no mapping, or repeats a key.
    """
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise RecipeError(f"a recipe is a mapping of keys and values, got {type(values).__name__}")
    return values


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _shared(kind: Any, values: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """The settings of a section that its variant `name` has too."""
    for variant in variants(kind):
        if name_of(variant) == name:
            return {key: value for key, value in values.items() if key in hints(variant)}
    return dict(values)


def _check_sharpness(recipe: Recipe) -> None:
    sharpness = recipe.sharpness
    if sharpness is None:
        return
    remembers = isinstance(sharpness, LookSAMSettings) or (isinstance(sharpness, SAMSettings) and sharpness.friendly)
    shared = not remembers or sharpness.sync == "global"
    require(
        shared,
        'sharpness.sync must be "global" where a direction is remembered, or a resume would lose the ranks\' own',
    )
    whole = sharpness.name != "esam" or recipe.objective.name not in ("free_at", "rspc")
    require(whole, f"sharpness esam takes part of the images, and the objective {recipe.objective.name} needs them all")


def _check_length(schedule: Any, epochs: int) -> None:
    if isinstance(schedule, StepSchedule):
        late = f"schedule.milestones must lie below epochs ({epochs}), got {list(schedule.milestones)}"
        require(schedule.milestones[-1] < epochs, late)
    if isinstance(schedule, CosineSchedule):
        late = f"schedule.warmup_epochs must be less than epochs ({epochs}), got {schedule.warmup_epochs}"
        require(schedule.warmup_epochs < epochs, late)


def _attack_message(objective: ObjectiveSettings) -> str:
    if objective.attacks:
        return f"attack must be given: the objective is {objective.name}"
    return (
        f"attack must be null: the {objective.name} objective does not use it; for adversarial training set "
        "objective.name"
    )
