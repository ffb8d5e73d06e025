"""The command: what it prints, where, and with which exit code."""

import runpy
import sys

import pytest
import robust_train.cli
import robust_train.loop
import yaml
from robust_models import create_model, load_weights
from robust_train import Diverged, Interrupted, Recipe, recipes
from robust_train.cli import main

QUICK = ["--epochs", "1", "--batch_size", "600", "--evaluation.steps", "1", "--device", "cpu"]


@pytest.fixture
def run(capsys):
    """Run the command and return exit code, standard output and the lines of the standard error stream."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return call


def test_lists_the_recipes(run):
    code, out, err = run("recipes")
    assert (code, err) == (0, [])
    assert all(name in out for name in recipes.names())


def test_shows_a_recipe_as_yaml_with_its_comments(run):
    code, out, err = run("show", "digits-fgsm-rs")
    assert (code, err) == (0, [])
    assert Recipe.from_yaml(out) == recipes.load("digits-fgsm-rs")
    assert "# as a multiple of eps" in out


def test_trains_with_overrides_and_goes_on_with_the_same_command(run, tmp_path):
    command = ["run", "--recipe", "digits-fgsm-rs", "--out", tmp_path / "run", *QUICK]
    command += ["--attack.eps", "1/10", "--attack.name", "pgd", "--attack.steps", "2", "--model.drop_rate=0.1"]
    code, out, err = run(*command)
    assert code == 0
    assert "held-out images" in out
    assert str(tmp_path / "run" / "model.safetensors") in out
    assert any(line.startswith("epoch 0, update 3: lr") for line in err)
    recipe = recipes.load(tmp_path / "run" / "config.yaml")
    assert (recipe.attack.name, recipe.attack.steps, recipe.attack.eps, recipe.model.drop_rate) == ("pgd", 2, 0.1, 0.1)
    load_weights(create_model("small_cnn_8"), tmp_path / "run" / "model.safetensors")

    code, out, err = run(*command)
    assert code == 0
    assert any("was finished already" in line for line in err)
    code, out, err = run(*command, "--seed", "3")
    assert (code, out, len(err)) == (2, "", 1)
    assert "another recipe (seed was 0 and is now 3)" in err[0]


def test_the_command_line_wins_over_the_file_and_the_file_over_the_recipe(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(robust_train.cli, "train", lambda recipe, *_, **__: seen.append(recipe) or 1 / 0)
    file = tmp_path / "some.yaml"
    file.write_text(yaml.safe_dump({"epochs": 7, "attack": {"eps": 0.2, "relative_step": 1.0}}))
    with pytest.raises(ZeroDivisionError):
        run("run", "--recipe", "digits-fgsm-rs", "--config", file, "--attack.eps", "0.3", "--out", tmp_path)
    assert (seen[0].epochs, seen[0].attack.eps, seen[0].attack.relative_step, seen[0].batch_size) == (7, 0.3, 1.0, 64)
    file.write_text(recipes.load("digits-pgd").to_yaml())
    with pytest.raises(ZeroDivisionError):
        run(
            "run",
            "--config",
            file,
            "--clip",
            "1.5",
            "--average.decay",
            "0.9",
            "--average.warmup",
            "power",
            "--average.start",
            "0",
            "--out",
            tmp_path,
        )
    assert seen[1] == recipes.load("digits-pgd").replace(
        clip=1.5, average={"decay": 0.9, "warmup": "power", "start": 0}
    )
    with pytest.raises(ZeroDivisionError):
        run(
            "run",
            "--config",
            file,
            "--optimizer.betas",
            "[0.8, 0.9]",
            "--model.weights",
            "null",
            "--name",
            "12",
            "--out",
            "x",
        )
    assert (seen[2].optimizer.betas, seen[2].model.weights, seen[2].name) == ((0.8, 0.9), None, "12")


def test_other_arguments_reach_the_training(run, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(robust_train.cli, "train", lambda *_, **options: seen.update(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("run", "--recipe", "digits-pgd", "--out", "o", "--data", "d", "--device", "cuda", "--workers", "3")
    assert seen == {"data": "d", "device": "cuda", "workers": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "subcommand"),
        (["runn"], "invalid choice"),
        (["show", "nothing"], "no recipe is called 'nothing'"),
        (["run", "--recipe", "digits-pgd"], "out"),
        (["run", "--out", "OUT"], "say what to train: --recipe with one of digits-advprop"),
        (["run", "--out", "OUT", "--recipe", "digit-pgd"], "did you mean digits-pgd?"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--attak.eps", "1"], "there is no option --attak.eps: did "
        "you mean --attack.eps"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--attack.eps", "8"], "attack.eps is in units of [0, 1] "
        "pixels"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--attack.eps", "much"], "attack.eps must be a number, "
        "got 'much'"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--attack.steps", "2.5"], "attack.steps must be a whole "
        "number"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--epochs", "[1"], "epochs must be a whole number"),
        (["run", "--out", "OUT", "--recipe", "digits-fgsm-rs", "--attack.steps", "2"], "attack (fgsm) has no key "
        "'steps'"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--config", "none.yaml"], "none.yaml"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--data", "somewhere"], "leave the data folder out"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--workers", "many"], "workers"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--model.name", "resnet999"], "no model is called "
        "'resnet999'"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--model.num_classes", "7"], "set model.num_classes to 10"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--device", "gpu7"], "gpu7"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--device", "mps"], "only cpu and cuda"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--workers", "-1"], "workers must not be negative"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--attack.ep", ".1"], "did you mean --attack.eps?"),
        (["run", "--out", "OUT", "--recip", "digits-pgd"], "did you mean --recipe?"),
        (["recipes", "--outt", "x"], "there is no option --outt: robust-train recipes --help"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--attack", "null"], "attack must be given: the objective"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--average", "0.9"], "average must be a section"),
        (["run", "--out", "FILE/run", "--recipe", "digits-pgd"], "FILE/run cannot be made or written to: Not a dir"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--config", "FILE"], "FILE: the recipe has no key 'epoch'"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--config", "BINARY"], "BINARY is no text in UTF-8"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--optimizer.name", "adahessian"], "second derivatives"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--model.name", "test_vit", "--model.img_size", "null"],
        "set model.img_size to 8"),
        (["run", "--out", "OUT", "--recipe", "digits-pgd", "--batch_size", "1", "--model.name", "test_efficientnet",
        "--model.img_size", "null"], "a single image, which the batch norm"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_clear_line_and_exit_code_2(arguments, message, run, tmp_path):
    (tmp_path / "FILE.yaml").write_text("epoch: 3")
    (tmp_path / "BINARY.yaml").write_bytes(b"\xff\xfe")
    for word, path in (("OUT", "run"), ("FILE", "FILE.yaml"), ("BINARY", "BINARY.yaml")):
        arguments = [argument.replace(word, str(tmp_path / path)) for argument in arguments]
        message = message.replace(word, path)
    code, out, err = run(*arguments)
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith("robust-train: ")
    assert message in err[0]


@pytest.mark.parametrize(("error", "code"), [(Diverged("NaN at 3"), 1), (Interrupted("stopped after 3"), 130)])
def test_exit_codes_of_runs_that_end_early(error, code, run, tmp_path, monkeypatch):
    def end(*_, **__):
        raise error

    monkeypatch.setattr(robust_train.cli, "train", end)
    assert run("run", "--recipe", "digits-pgd", "--out", tmp_path) == (code, "", [f"robust-train: {error}"])


def test_the_help_explains_every_setting(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert out.startswith("usage: robust-train run --out OUT [--recipe NAME] [--config FILE] [--SETTING VALUE ...]")
    assert "--attack null null for none: how the images" in out
    assert "--attack.relative_step NUMBER length of" in out
    assert "--schedule.milestones [NUMBER,...] the epochs, strictly rising" in out
    assert "--data.name digits|folder" in out


@pytest.mark.parametrize("error", [ValueError("of a library"), TypeError("a bug"), RuntimeError("shapes")])
def test_errors_inside_of_the_training_keep_their_traceback(error, run, tmp_path, monkeypatch):
    def end(*_, **__):
        raise error

    monkeypatch.setattr(robust_train.loop, "set_learning_rate", end)
    with pytest.raises(type(error), match=str(error)):
        run("run", "--recipe", "digits-pgd", "--out", tmp_path / "run", "--device", "cpu")


def test_sections_that_may_be_absent_can_be_set_to_null(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(robust_train.cli, "train", lambda recipe, *_, **__: seen.append(recipe) or 1 / 0)
    command = ["run", "--recipe", "digits-fgsm-rs", "--out", tmp_path, "--objective.name", "standard"]
    command += ["--attack", "null", "--average=null", "--evaluation.norm", "Linf", "--evaluation.eps", "0.1"]
    with pytest.raises(ZeroDivisionError):
        run(*command)
    assert (seen[0].objective.name, seen[0].attack, seen[0].average) == ("standard", None, None)


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"robust-train {robust_train.__version__}\n"


def test_runs_as_a_module(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["robust_train", "show", "digits-pgd"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("robust_train", run_name="__main__")
    captured = capsys.readouterr()
    assert (ended.value.code, captured.err) == (0, "")
    assert Recipe.from_yaml(captured.out) == recipes.load("digits-pgd")
