"""The recipes in the package."""

import pytest
from robust_train import Recipe, RecipeError, recipes


@pytest.mark.parametrize("name", recipes.names())
def test_each_recipe_is_complete_and_says_where_it_comes_from(name):
    recipe = recipes.load(name)
    assert recipe.name == name
    assert len(recipe.source) > 20
    assert len(recipe.expected) > 20
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_the_published_values_of_fgsm_rs():
    """Wong et al.: a uniform start, one step of 1.25 eps; the goal of the digits demo: eps 0.15, 60 epochs."""
    recipe = recipes.load("digits-fgsm-rs")
    assert (recipe.objective.name, recipe.attack.name, recipe.attack.norm) == ("adversarial", "fgsm", "Linf")
    assert (recipe.attack.eps, recipe.attack.relative_step, recipe.attack.start) == (0.15, 1.25, "uniform")
    assert (recipe.epochs, recipe.batch_size, recipe.model.name) == (60, 64, "small_cnn_8")
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.weight_decay) == ("adamw", 2e-3, 5e-4)
    assert recipe.schedule.name == "onecycle"


def test_the_other_digits_recipes_differ_only_where_they_must():
    fgsm, pgd, standard = (recipes.load(f"digits-{name}") for name in ("fgsm-rs", "pgd", "standard"))
    described = {"name", "source", "expected", "epochs"}
    assert set(fgsm.differences(pgd)) - described == {"attack.name", "attack.steps", "attack.relative_step"}
    changed = {key.partition(".")[0] for key in fgsm.differences(standard)} - described
    assert changed == {"objective", "attack", "evaluation"}
    assert (pgd.attack.steps, pgd.epochs, standard.attack, standard.epochs) == (7, 40, None, 30)


def test_reads_a_file_and_keeps_its_text(tmp_path):
    text = "# a comment\n" + recipes.load("digits-pgd").replace(name="mine").to_yaml()
    (tmp_path / "mine.yaml").write_text(text)
    assert recipes.load(tmp_path / "mine.yaml").name == "mine"
    assert recipes.load(str(tmp_path / "mine.yaml")).name == "mine"
    assert recipes.text(tmp_path / "mine.yaml") == text


def test_names_and_files_that_do_not_exist(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe is called 'digit-pgd' \(did you mean digits-pgd\?\): there are"):
        recipes.load("digit-pgd")
    with pytest.raises(FileNotFoundError, match=r"none\.yaml"):
        recipes.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("epochs: 3")
    with pytest.raises(RecipeError, match=r"bad\.yaml: the recipe lacks name, source"):
        recipes.load(tmp_path / "bad.yaml")
