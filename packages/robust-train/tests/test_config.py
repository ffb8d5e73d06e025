"""Recipes as values: what they refuse and how they change."""

import dataclasses

import pytest
from robust_train import Recipe, RecipeError, recipes
from robust_train._fields import flatten, plain
from robust_train.config import read_yaml
from robust_train.settings import AverageSettings, PGDAttack

FOLDER = {
    "name": "folder", "held_out": 0.1, "drop_last": True, "size": 32, "scale": [0.5, 1.0], "flip": 0.5,
    "color_jitter": 0.0, "crop": 0.9, "interpolation": "bilinear",
}  # fmt: skip


@pytest.fixture
def recipe():
    return recipes.load("digits-fgsm-rs")


def test_is_a_frozen_value(recipe):
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3
    assert recipe == recipes.load("digits-fgsm-rs")
    assert recipe != recipe.replace(seed=1)
    assert hash(recipe) == hash(recipes.load("digits-fgsm-rs"))


def test_yaml_round_trip(recipe):
    changed = recipe.replace(
        data=FOLDER,
        clip=1 / 3,
        average={"decay": 0.999, "warmup": "none", "start": 0},
        schedule={"name": "steps", "milestones": [1, 2.5], "factor": 0.1},
    )
    assert Recipe.from_yaml(changed.to_yaml()) == changed
    assert list(read_yaml(changed.to_yaml())) == [field.name for field in dataclasses.fields(Recipe)]


def test_replaces_by_dotted_names_without_touching_the_original(recipe):
    changed = recipe.replace(**{"attack.eps": 0.1, "epochs": 5, "model.name": "resnet10t"})
    assert (changed.attack.eps, changed.epochs, changed.model.name) == (0.1, 5, "resnet10t")
    assert (recipe.attack.eps, recipe.epochs, recipe.model.name) == (0.15, 60, "small_cnn_8")
    assert changed.attack.relative_step == recipe.attack.relative_step
    assert recipe.differences(changed) == {
        "model.name": ("small_cnn_8", "resnet10t"),
        "attack.eps": (0.15, 0.1),
        "epochs": (60, 5),
    }


def test_another_kind_of_section_keeps_what_both_have(recipe):
    attack = recipe.replace(**{"attack.steps": 3, "attack.name": "pgd"}).attack
    assert (attack.name, attack.steps, attack.eps, attack.relative_step) == ("pgd", 3, 0.15, 1.25)
    schedule = recipe.replace(**{"schedule.name": "constant"}).schedule
    assert schedule.name == "constant"
    with pytest.raises(RecipeError, match=r"attack \(pgd\) lacks steps: a recipe states every setting"):
        recipe.replace(**{"attack.name": "pgd"})


def test_a_section_can_come_and_go(recipe):
    standard = recipe.replace(
        **{"attack": None, "objective.name": "standard", "evaluation.eps": 0.1, "evaluation.norm": "L2"}
    )
    assert standard.attack is None
    averaged = recipe.replace(**{"average.decay": 0.9, "average.warmup": "ratio", "average.start": 0})
    assert averaged.average.decay == 0.9
    assert averaged.replace(average=None) == recipe


def test_typed_values_are_as_good_as_plain_ones(recipe):
    attack = PGDAttack(
        name="pgd",
        norm="Linf",
        eps=0.1,
        steps=2,
        relative_step=0.5,
        start="uniform",
        batch_norm="eval",
        autocast=False,
        warmup="none",
        warmup_epochs=0,
        warmup_per="epoch",
    )
    changed = recipe.replace(attack=attack, average=AverageSettings(decay=0.9, warmup="none", start=0.0))
    assert changed.attack == attack
    assert changed.replace(**{"attack.steps": 3}).attack == dataclasses.replace(attack, steps=3)
    assert recipe.replace(**{"optimizer.betas": (0.8, 0.9)}).optimizer.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": "3"}, r"epochs must be a whole number, got '3' \(str\)"),
        ({"clip": "1/2"}, r"clip must be 0\.5, got '1/2'"),
        ({"average": {"decay": 0.9, "warmup": "none", "start": 0}}, r"average must be AverageSettings\("),
        ({"attack": 3}, "attack must be a section"),
        ({"select": "first"}, "select must be one of last, best"),
    ],
)
def test_wrong_types_are_refused_also_without_replace(changes, message, recipe):
    with pytest.raises(RecipeError, match=message):
        dataclasses.replace(recipe, **changes)


@pytest.mark.parametrize(("text", "eps"), [("8/255", 8 / 255), ("1e-2", 0.01), (" 0.1", 0.1), (1, 1.0)])
def test_numbers_may_be_fractions_and_what_yaml_takes_for_text(text, eps, recipe):
    changed = recipe.replace(**{"attack.eps": text})
    assert changed.attack.eps == eps
    assert type(changed.attack.eps) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, r"the recipe has no key 'epoch' \(did you mean epochs\?\); its keys are name, source"),
        ({"attak.eps": 0.1}, r"the recipe has no key 'attak' \(did you mean attack\?\)"),
        ({"attack.epsilon": 0.1}, r"attack \(fgsm\) has no key 'epsilon'.*its keys are name, norm, eps"),
        ({"attack.steps": 3}, r"attack \(fgsm\) has no key 'steps'"),
        ({"epochs.more": 3}, "epochs is a plain setting and has no 'more' inside"),
        (
            {"attack.eps": 8},
            r"attack\.eps is in units of \[0, 1\] pixels and at most 1 for Linf, got 8\.0: write 8/255",
        ),
        ({"attack.eps": 0}, r"attack\.eps must be positive"),
        ({"attack.eps": "a lot"}, r"attack\.eps must be a number, got 'a lot' \(str\)"),
        ({"attack.eps": "1/0"}, r"attack\.eps must be a number"),
        ({"attack.eps": float("nan")}, r"attack\.eps must be a number"),
        ({"attack.eps": True}, r"attack\.eps must be a number, got True \(bool\)"),
        ({"attack.eps": None}, r"attack\.eps must be a number, got None"),
        ({"attack.norm": "L3"}, r"attack\.norm must be one of Linf, L2, L1, got 'L3'"),
        ({"attack.name": "pdg"}, r"attack\.name must be one of fgsm, n_fgsm, pgd, got 'pdg' \(did you mean pgd\?\)"),
        ({"attack": 0.1}, "attack must be a section with a name, one of fgsm, n_fgsm, pgd; got 0.1"),
        ({"attack": None}, "attack must be given: the objective is adversarial"),
        ({"objective.name": "standard"}, "attack must be null: the standard objective does not use it"),
        ({"objective": "standard"}, "objective must be a section with a name, one of"),
        ({"attack": None, "objective.name": "standard"}, r"evaluation\.norm and evaluation\.eps must be given"),
        ({"attack.autocast": True}, "attack.autocast has no effect in float32"),
        ({"attack.relative_step": 0}, r"attack\.relative_step must be positive"),
        ({"attack.batch_norm": "off"}, "must be one of eval, train, train_moving"),
        ({"epochs": 2.5}, r"epochs must be a whole number, got 2\.5 \(float\)"),
        ({"epochs": True}, "epochs must be a whole number, got True"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"clip": 0}, "clip must be positive or null"),
        ({"precision": "fp8"}, "precision must be one of float32, bf16, fp16, got 'fp8'"),
        ({"name": 3}, r"name must be text, got 3 \(int\)"),
        ({"data.drop_last": "maybe"}, "data.drop_last must be true or false, got 'maybe'"),
        ({"data.held_out": 0}, r"data\.held_out must lie in \(0, 0\.5\]"),
        ({"data": {**FOLDER, "scale": [0.5]}}, r"data\.scale must have 2 numbers, got 1"),
        ({"data": {**FOLDER, "scale": 0.5}}, r"data\.scale must be a list of numbers"),
        ({"data": {**FOLDER, "scale": [0.9, 0.5]}}, "two shares 0 < low <= high <= 1"),
        ({"data": {**FOLDER, "size": 0}}, "data.size must be at least 1 pixel"),
        ({"data": {**FOLDER, "flip": 2}}, "data.flip must be a probability"),
        ({"data": {**FOLDER, "color_jitter": -1}}, "data.color_jitter must not be negative"),
        ({"data": {**FOLDER, "crop": 0}}, r"data\.crop must lie in \(0, 1\]"),
        ({"data": {**FOLDER, "held_out": 1}}, r"data\.held_out must lie"),
        ({"model.num_classes": 1}, "model.num_classes must be at least 2"),
        ({"model.in_chans": 0}, "model.in_chans must be at least 1"),
        ({"model.drop_rate": 1}, r"model\.drop_rate must lie in \[0, 1\)"),
        ({"model.drop_path_rate": -0.1}, r"model\.drop_path_rate must lie in \[0, 1\)"),
        ({"objective.label_smoothing": 1}, r"objective\.label_smoothing must lie in \[0, 1\)"),
        ({"optimizer.name": "adamv"}, "optimizer.name 'adamv' is no optimizer of timm"),
        ({"optimizer.momentum": 0.9}, "optimizer.momentum must be null: adamw does not use it"),
        ({"optimizer.betas": None}, "optimizer.betas must be given: adamw uses it"),
        ({"optimizer.betas": [0.9]}, "optimizer.betas must be 2 numbers"),
        ({"optimizer.betas": [0.9, 1]}, r"optimizer\.betas must lie in \[0, 1\)"),
        ({"optimizer.name": "sgd"}, "optimizer.momentum must be given: sgd uses it"),
        ({"optimizer.name": "sgd", "optimizer.momentum": 1, "optimizer.betas": None}, r"momentum must lie in \[0, 1\)"),
        ({"optimizer.lr": 0}, "optimizer.lr must be positive"),
        ({"optimizer.weight_decay": -1}, "optimizer.weight_decay must not be negative"),
        ({"optimizer.layer_decay": 1}, r"optimizer\.layer_decay must lie in \(0, 1\) or be null"),
        ({"schedule.peak": 1}, r"schedule\.peak must lie in \(0, 1\)"),
        ({"schedule.start": 2}, "schedule.start must be a share of lr"),
        ({"schedule": {"name": "cosine", "warmup_epochs": 0, "start": 0, "end": 0}}, "start has no effect without"),
        ({"schedule": {"name": "cosine", "warmup_epochs": -1, "start": 1, "end": 0}}, "must not be negative"),
        ({"schedule": {"name": "cosine", "warmup_epochs": 0, "start": 1, "end": 2}}, "end must be a share"),
        ({"schedule": {"name": "steps", "milestones": [2, 1], "factor": 0.1}}, "milestones must be strictly rising"),
        ({"schedule": {"name": "steps", "milestones": [1, 1], "factor": 0.1}}, "must be strictly rising"),
        ({"schedule": {"name": "steps", "milestones": [0, 1], "factor": 0.1}}, "epochs above 0"),
        ({"schedule": {"name": "steps", "milestones": [60], "factor": 0.1}}, r"must lie below epochs \(60\), got"),
        ({"schedule": {"name": "cosine", "warmup_epochs": 60, "start": 1, "end": 0}}, r"less than epochs \(60\)"),
        ({"optimizer.name": "adahessian"}, "optimizer.name 'adahessian' needs second derivatives"),
        ({"schedule": {"name": "steps", "milestones": [], "factor": 0.1}}, "at least one"),
        ({"schedule": {"name": "steps", "milestones": [1], "factor": 1}}, r"schedule\.factor must lie in \(0, 1\)"),
        ({"average": {"decay": 1, "warmup": "power", "start": 0}}, r"average\.decay must lie in \(0, 1\)"),
        ({"evaluation.every": 0}, "evaluation.every must be at least 1"),
        ({"evaluation.eps": 0.1}, "evaluation.norm and eps must be given both"),
        ({"evaluation.eps": 8, "evaluation.norm": "Linf"}, "evaluation.eps is in units of"),
        ({"sharpness": {"name": "looksam", "rho": 0.1, "k": 5, "alpha": 0.7, "sync": "per_rank"}}, "must be .global."),
        ({"accumulate": 65}, r"accumulate must be at most batch_size \(64\)"),
        ({"attack.warmup": "radius"}, "warmup_epochs must be positive for a warm-up of the radius"),
        ({"attack.warmup_epochs": 3}, "warmup_epochs must be 0 without a warm-up"),
        (
            {"accumulate": 2, "sharpness": {"name": "esam", "rho": 0.1, "beta": 1, "gamma": 1, "sync": "global"}},
            "accumulate must be 1 with sharpness esam",
        ),
        (
            {
                "attack": None,
                "objective": {"name": "free_at", "eps": 0.1, "replays": 2},
                "evaluation.norm": "Linf",
                "evaluation.eps": 0.1,
                "sharpness": {"name": "esam", "rho": 0.1, "beta": 1, "gamma": 1, "sync": "global"},
            },
            "takes part of the images, and the objective free_at needs them all",
        ),
        ({"evaluation.relative_step": 0}, "evaluation.relative_step must be positive"),
    ],
)
def test_refuses_what_makes_no_sense_and_says_which_setting(changes, message, recipe):
    with pytest.raises(RecipeError, match=message):
        recipe.replace(**changes)


def test_larger_balls_are_fine_in_other_norms(recipe):
    assert recipe.replace(**{"attack.norm": "L2", "attack.eps": 3}).attack.eps == 3
    assert recipe.replace(**{"attack.norm": "L1", "attack.eps": 12}).attack.eps == 12


def test_every_setting_must_be_stated(recipe):
    """No default hides in the code: each key that is left out is named."""
    values = plain(recipe)
    for key in flatten(values):
        section, _, setting = key.partition(".")
        if setting:
            inner = {name: value for name, value in values[section].items() if name != setting}
            incomplete = {**values, section: inner}
        else:
            incomplete = {name: value for name, value in values.items() if name != section}
        with pytest.raises(RecipeError, match=rf"lacks {setting or section}|must be one of .* got None"):
            Recipe.from_yaml(_yaml(incomplete))


def _yaml(values):
    import yaml

    return yaml.safe_dump(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2", "a recipe is a mapping of keys and values, got list"),
        ("", "a recipe is a mapping"),
        ("a: [1", "not valid YAML"),
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_text_that_is_no_recipe(text, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_yaml(text)
