"""The training loop: what it learns, writes, repeats and refuses."""

import csv
import dataclasses
import json
import math
import os
import re
import shutil
import signal
import sys

import pytest
import robust_train.checkpoint
import robust_train.loop
import torch
from robust_attacks import PGD, ImageRandom, Linf
from robust_bench import evaluate
from robust_bench.conditions import Attacked, Clean
from robust_bench.datasets import digits
from robust_models import create_model, load_weights
from robust_train import CheckpointWarning, Diverged, Interrupted, ResumeError, recipes, train
from robust_train.data import load_data
from robust_train.run_folder import open_run
from robust_train.seeds import derive


def weights(report):
    return {name: value.clone() for name, value in report.model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def reference(tiny, tmp_path_factory):
    """An unbroken run of the tiny recipe; it is only read."""
    torch.set_num_threads(1)
    return train(tiny, tmp_path_factory.mktemp("reference"), device="cpu")


@pytest.fixture
def unbroken(reference, tmp_path):
    """The same run in a folder of its own."""
    folder = tmp_path / "unbroken"
    shutil.copytree(reference.folder, folder)
    return dataclasses.replace(reference, folder=folder, weights=folder / "model.safetensors")


def test_the_loop_is_the_formula(tiny, tmp_path):
    """Two epochs of plain SGD on FGSM-RS images, written once more with nothing of this package but its seeds."""
    recipe = tiny.replace(
        **{
            "epochs": 2,
            "average": None,
            "clip": None,
            "model.drop_rate": 0,
            "optimizer": {
                "name": "momentum", "lr": 0.1, "weight_decay": 0.01, "momentum": 0.9, "betas": None,
                "decay_all": True, "layer_decay": None,
            },
            "schedule": {"name": "steps", "milestones": [1], "factor": 0.1},
        }
    )  # fmt: skip
    report = train(recipe, tmp_path, device="cpu")

    torch.manual_seed(0)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(derive(0, "weights"))
        model = create_model("small_cnn_8")
    parameters = list(model.parameters())
    velocity = [torch.zeros_like(parameter) for parameter in parameters]
    data, update = load_data(recipe), 0
    for epoch in range(2):
        for images, labels, _ in data.batches(epoch):
            random = ImageRandom(derive(0, "attack", update), torch.arange(len(images)))
            noise = (2 * random.uniform("fgsm/start", (1, 8, 8)).double() - 1) * 0.15
            start = (images + noise).clamp(0, 1).float().requires_grad_()
            (gradient,) = torch.autograd.grad(
                torch.nn.functional.cross_entropy(model(start), labels, reduction="sum"), start
            )
            moved = start.detach() + 1.25 * 0.15 * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, images - 0.15), images + 0.15).clamp(0, 1)
            gradients = torch.autograd.grad(torch.nn.functional.cross_entropy(model(moved), labels), parameters)
            with torch.no_grad():
                for parameter, direction, speed in zip(parameters, gradients, velocity, strict=True):
                    speed.mul_(0.9).add_(direction + 0.01 * parameter)
                    parameter.sub_(0.1 * 0.1**epoch * speed)
            update += 1
    for name, value in model.state_dict().items():
        torch.testing.assert_close(report.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_run_folder_holds_everything(tiny, unbroken, records):
    folder = unbroken.folder
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "versions.json", "metrics.jsonl", "summary.csv", "checkpoints", "model.safetensors",
        ".lock",
    }  # fmt: skip
    assert recipes.load(folder / "config.yaml") == tiny
    lines = records(folder)
    windows = [line for line in lines if line["kind"] == "window"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["update"] for line in windows] == [3, 5, 6, 9, 10, 12, 15]
    assert [line["update"] for line in epochs] == [5, 10, 15]
    assert ["robust" in line for line in epochs] == [False, True, True]
    assert all({"lr", "loss", "adversarial_accuracy"} <= line.keys() for line in windows)
    with (folder / "summary.csv").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["0", "1", "2"]
    kept = sorted(path.name.rpartition("-")[0] for path in (folder / "checkpoints").iterdir())
    assert kept == [f"best-{unbroken.best['update']:08d}", "last-00000014", "last-00000015"]
    assert [record["epoch"] for record in unbroken.history] == [0, 1, 2]
    assert unbroken.best["robust"] == max(record["robust"] for record in unbroken.history if "robust" in record)


def test_the_epoch_record_is_the_mean_over_its_images(unbroken, records):
    first, second, epoch = records(unbroken.folder)[:3]
    sizes = (768, 1212 - 768)
    for name in ("loss", "adversarial_accuracy"):
        mean = (sizes[0] * first[name] + sizes[1] * second[name]) / 1212
        assert epoch[name] == pytest.approx(mean, rel=1e-12)


def test_the_exported_weights_are_those_of_the_model_and_of_its_last_evaluation(tiny, unbroken):
    fresh = create_model("small_cnn_8")
    load_weights(fresh, unbroken.weights)
    assert_same(fresh.state_dict(), weights(unbroken))
    assert not unbroken.model.training
    attack = PGD(threat=Linf(eps=0.15), steps=2, step_size=0.25 * 0.15)
    conditions = (Clean(), Attacked(attack=attack))
    rows = evaluate(
        fresh, load_data(tiny).validation, conditions=conditions, batch_size=256, seed=0, progress=False
    ).rows
    assert [row.value for row in rows] == [unbroken.history[-1]["clean"], unbroken.history[-1]["robust"]]


def test_the_best_weights_can_be_exported_instead(tiny, tmp_path, monkeypatch):
    scores = iter([0.4, 0.6, 0.5])
    states = []

    def judge(model, *_):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"clean": 0.9, "robust": next(scores), "seconds": 0.1}

    monkeypatch.setattr(robust_train.loop, "evaluate_held_out", judge)
    report = train(tiny.replace(**{"select": "best", "evaluation.every": 1}), tmp_path, device="cpu")
    assert report.best["epoch"] == 1
    assert_same(weights(report), states[1])
    fresh = create_model("small_cnn_8")
    load_weights(fresh, report.weights)
    assert_same(fresh.state_dict(), states[1])


@pytest.mark.filterwarnings("ignore::robust_train.CheckpointWarning")
def test_a_damaged_best_checkpoint_is_never_replaced_by_the_last_weights(tiny, tmp_path, monkeypatch):
    scores = iter([0.6, 0.5, 0.4])
    judge = lambda *_: {"clean": 0.9, "robust": next(scores), "seconds": 0.1}  # noqa: E731
    monkeypatch.setattr(robust_train.loop, "evaluate_held_out", judge)
    recipe = tiny.replace(**{"select": "best", "evaluation.every": 1})
    report = train(recipe, tmp_path, device="cpu")
    exported = report.weights.read_bytes()
    (best,) = (tmp_path / "checkpoints").glob("best-00000005-*.pt")
    best.write_bytes(best.read_bytes()[:-1])
    for _ in range(2):  # the second time the file has its other name
        with pytest.raises(ResumeError, match=r"best-00000005-.*is missing or damaged and nothing is exported"):
            train(recipe, tmp_path, device="cpu")
    assert report.weights.read_bytes() == exported


@pytest.mark.filterwarnings("ignore::robust_train.CheckpointWarning")
def test_the_best_weights_come_from_the_last_checkpoint_where_that_is_the_best(tiny, tmp_path, monkeypatch):
    scores = iter([0.4, 0.5, 0.6])
    judge = lambda *_: {"clean": 0.9, "robust": next(scores), "seconds": 0.1}  # noqa: E731
    monkeypatch.setattr(robust_train.loop, "evaluate_held_out", judge)
    recipe = tiny.replace(**{"select": "best", "evaluation.every": 1})
    first = weights(train(recipe, tmp_path, device="cpu"))
    (best,) = (tmp_path / "checkpoints").glob("best-*.pt")
    best.write_bytes(b"")
    assert_same(weights(train(recipe, tmp_path, device="cpu")), first)


def test_an_older_best_goes_only_after_the_newer_state_is_written(tiny, tmp_path, monkeypatch):
    """Killed between the two, both bests are there."""
    scores = iter([0.4, 0.5, 0.6])
    judge = lambda *_: {"clean": 0.9, "robust": next(scores), "seconds": 0.1}  # noqa: E731
    monkeypatch.setattr(robust_train.loop, "evaluate_held_out", judge)
    save = robust_train.checkpoint.save

    def dying(folder, kind, update, state):
        if (kind, update) == ("last", 10):
            raise Killed
        return save(folder, kind, update, state)

    monkeypatch.setattr(robust_train.checkpoint, "save", dying)
    with pytest.raises(Killed):
        train(tiny.replace(**{"evaluation.every": 1, "checkpoint_every": 99}), tmp_path, device="cpu")
    assert {path.name[:13] for path in (tmp_path / "checkpoints").glob("best-*.pt")} == {
        "best-00000005",
        "best-00000010",
    }


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tiny, unbroken, tmp_path, records):
    again = train(tiny, tmp_path / "again", device="cpu")
    assert_same(weights(unbroken), weights(again))
    assert records(unbroken.folder) == records(again.folder)
    other = train(tiny.replace(seed=1), tmp_path / "other", device="cpu")
    assert not torch.equal(weights(other)["model.conv1.weight"], weights(again)["model.conv1.weight"])


def test_the_callers_random_state_and_handlers_stay(tiny, tmp_path):
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    train(tiny.replace(epochs=1), tmp_path, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert signal.getsignal(signal.SIGINT) is handler


class Killed(BaseException):
    """Stands for the death of the process."""


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 10, 11, 15, 17])  # 17, or 18 if the last epoch is the best
def test_a_death_at_any_write_changes_nothing(count, tiny, unbroken, tmp_path, monkeypatch, records):
    """The run dies before one of its renames (config, records, checkpoints, ...) and is started again."""
    folder = tmp_path / "broken"
    path_type, calls = type(tmp_path), []
    replace = path_type.replace

    def dying(path, target):
        if folder not in path.parents:
            return replace(path, target)
        calls.append(target)
        if len(calls) == count:
            raise Killed
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(path_type, "replace", dying)
        try:
            train(tiny, folder, device="cpu")
        except Killed:
            pass
        else:
            pytest.fail(f"the run wrote only {len(calls)} files")
    assert_same(weights(train(tiny, folder, device="cpu")), weights(unbroken))
    assert records(folder) == records(unbroken.folder)
    assert (folder / "summary.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("update", [1, 4, 5, 6, 15])
def test_ctrl_c_writes_a_checkpoint_and_the_same_call_goes_on(update, tiny, unbroken, tmp_path, records, monkeypatch):
    folder = tmp_path / "stopped"
    set_learning_rate = robust_train.loop.set_learning_rate
    seen = []

    def press(*arguments):
        seen.append(arguments)
        if len(seen) == update:
            os.kill(os.getpid(), signal.SIGINT)
        set_learning_rate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(robust_train.loop, "set_learning_rate", press)
        with pytest.raises(Interrupted, match=f"stopped after update {update} of 15; the same call goes on from there"):
            train(tiny, folder, device="cpu")
    state = robust_train.checkpoint.newest(folder / "checkpoints")[1]
    assert (state["update"], len(state["history"])) == (update, (update - 1) // 5)  # stopped before the evaluation
    report = train(tiny, folder, device="cpu")
    assert report.resumed == update
    assert_same(weights(report), weights(unbroken))
    assert records(folder) == records(unbroken.folder)


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_truncated_checkpoint_is_detected_and_the_one_before_is_used(keep, tiny, unbroken, tmp_path, records, caplog):
    expected, lines = weights(unbroken), records(unbroken.folder)
    newest = robust_train.checkpoint.listed(unbroken.folder / "checkpoints")
    for path in newest[-1:] + [path for path in newest if path.name.startswith("best-00000015")]:
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
    with pytest.warns(CheckpointWarning) as warned:
        report = train(tiny, unbroken.folder, device="cpu")
    assert re.search(r"last-00000015.* truncated or damaged.* is tried instead", str(warned[0].message))
    assert "truncated or damaged" in caplog.text
    assert report.resumed == 14
    assert_same(weights(report), expected)
    assert records(unbroken.folder) == lines


def test_without_a_whole_checkpoint_it_starts_again(tiny, unbroken, records):
    expected, lines = weights(unbroken), records(unbroken.folder)
    for path in (unbroken.folder / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.warns(CheckpointWarning):
        report = train(tiny, unbroken.folder, device="cpu")
    assert report.resumed == 0
    assert_same(weights(report), expected)
    assert records(unbroken.folder) == lines


def test_a_finished_run_says_so_and_gives_its_model(tiny, unbroken, caplog, records):
    caplog.set_level("INFO", "robust_train")
    lines = records(unbroken.folder)
    report = train(tiny, unbroken.folder, device="cpu")
    assert "was finished already" in caplog.text
    assert_same(weights(report), weights(unbroken))
    assert (report.resumed, report.history, report.best) == (15, unbroken.history, unbroken.best)
    assert records(unbroken.folder) == lines


@pytest.mark.parametrize("missing", [[], ["config.yaml", "versions.json"]])
def test_a_changed_recipe_is_refused_whatever_became_of_the_files(missing, tiny, unbroken):
    for name in missing:
        (unbroken.folder / name).unlink()
    versions = unbroken.folder / "versions.json"
    before = versions.exists() and versions.read_bytes()
    with pytest.raises(ResumeError, match=r"attack\.eps was 0\.15 and is now 0\.1; epochs was 3 and is now 4"):
        train(tiny.replace(**{"epochs": 4, "attack.eps": 0.1}), unbroken.folder, device="cpu")
    with pytest.raises(ResumeError, match="already holds a run"):
        train(tiny, unbroken.folder, device="cpu", resume=False)
    assert (versions.exists() and versions.read_bytes()) == before


def test_a_finished_run_without_its_records_has_them_in_the_checkpoint(tiny, unbroken, caplog):
    for name in ("metrics.jsonl", "summary.csv"):
        (unbroken.folder / name).unlink()
    report = train(tiny, unbroken.folder, device="cpu")
    assert report.history == unbroken.history
    assert "lacked the lines of 3 epochs" in caplog.text
    lines = [json.loads(line) for line in (unbroken.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(unbroken.history)
    assert (unbroken.folder / "summary.csv").read_text().count("\n") == 4


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_two_processes_do_not_train_in_one_folder(tiny, unbroken):
    with open_run(unbroken.folder).locked(), pytest.raises(ResumeError, match="another process trains in"):
        train(tiny, unbroken.folder, device="cpu")


@pytest.mark.filterwarnings("ignore:logits or gradients of:RuntimeWarning")  # the attack notices too
@pytest.mark.parametrize("first", [7, 8, 9, 10])
def test_a_loss_or_weight_that_is_no_number_stops(first, tiny, tmp_path, monkeypatch):
    """Weights explode from update `first` on, inside of an epoch or at its end; the last finite checkpoint is kept."""
    factor = robust_train.loop.factor
    monkeypatch.setattr(robust_train.loop, "factor", lambda *a: 1e40 if a[1] >= first else factor(*a))
    with pytest.raises(Diverged, match="NaN or infinite in the updates up to") as caught:
        train(tiny, tmp_path, device="cpu")
    message = str(caught.value)
    assert "Lower optimizer.lr" in message
    newest = robust_train.checkpoint.listed(tmp_path / "checkpoints")[-1]
    assert str(newest) in message
    state = robust_train.checkpoint.newest(tmp_path / "checkpoints")[1]
    assert state["update"] <= first + 1  # the explosion shows in the loss of the next update
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert all(math.isfinite(json.loads(line).get("loss", 0)) for line in lines)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.filterwarnings("ignore:logits or gradients of:RuntimeWarning")
def test_divergence_before_the_first_checkpoint_says_so(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(robust_train.loop, "factor", lambda *_: float("nan"))
    with pytest.raises(Diverged, match="no checkpoint was written yet"):
        train(tiny, tmp_path, device="cpu")


def mixed_precision_resumes(recipe, device, folder, monkeypatch):
    """Train, train again with a death after a checkpoint, and compare; the state of that checkpoint comes back."""
    whole = train(recipe, folder / "whole", device=device)
    saved = []
    save = robust_train.checkpoint.save

    def dying(*arguments):
        saved.append(save(*arguments))
        if len(saved) == 2:
            raise Killed
        return saved[-1]

    with monkeypatch.context() as patch:
        patch.setattr(robust_train.checkpoint, "save", dying)
        with pytest.raises(Killed):
            train(recipe, folder / "broken", device=device)
    state = robust_train.checkpoint.newest(folder / "broken" / "checkpoints")[1]
    again = train(recipe, folder / "broken", device=device)
    assert again.resumed == 4
    assert_same(weights(again), weights(whole))
    assert {value.dtype for value in whole.model.state_dict().values()} == {torch.float32}
    return whole, state


def test_bf16_on_the_cpu_learns_resumes_and_is_not_float32(tiny, unbroken, tmp_path, monkeypatch):
    recipe = tiny.replace(**{"precision": "bf16", "attack.autocast": True})
    whole, state = mixed_precision_resumes(recipe, "cpu", tmp_path, monkeypatch)
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]
    assert state["scaler"] == {}
    assert not torch.equal(weights(whole)["model.conv1.weight"], weights(unbroken)["model.conv1.weight"])


def test_fp16_scales_the_loss_and_keeps_the_scale_in_the_checkpoint(tiny, tmp_path, monkeypatch):
    recipe = tiny.replace(
        **{
            "precision": "fp16", "objective.name": "standard", "attack": None, "evaluation.norm": "Linf",
            "evaluation.eps": 0.1, "epochs": 1, "data.held_out": 0.5, "batch_size": 128,
        }
    )  # fmt: skip
    _, state = mixed_precision_resumes(recipe, "cpu", tmp_path, monkeypatch)
    assert state["scaler"]["scale"] == 2.0**16
    assert state["scaler"]["_growth_tracker"] == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_trains_and_resumes_on_a_gpu(precision, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    recipe = tiny.replace(**{"precision": precision, "attack.autocast": precision != "float32", "epochs": 10})
    state = torch.cuda.get_rng_state()
    whole, saved = mixed_precision_resumes(recipe, "cuda", tmp_path, monkeypatch)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert next(whole.model.parameters()).is_cuda
    assert whole.history[-1]["clean"] > 0.8
    assert bool(saved["scaler"]) == (precision == "fp16")


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
@pytest.mark.parametrize("batch_norm", ["eval", "train", "train_moving"])
def test_a_network_with_batch_norm_trains_in_every_mode(attack, batch_norm, tiny, tmp_path):
    recipe = tiny.replace(
        **{
            "model.name": "test_efficientnet", "model.img_size": None, "model.drop_rate": 0, "epochs": 1,
            "batch_size": 600, "attack.name": attack, "attack.batch_norm": batch_norm, "evaluation.steps": 1,
            **({"attack.steps": 2} if attack == "pgd" else {}),
        }
    )  # fmt: skip
    report = train(recipe, tmp_path, device="cpu")
    counts = {value.item() for name, value in report.model.state_dict().items() if name.endswith("num_batches_tracked")}
    passes = {"fgsm": 1, "pgd": 2}[attack] if batch_norm == "train_moving" else 0
    assert counts == {3 * (1 + passes)}


def test_trains_on_a_folder_and_goes_on_inside_of_an_epoch(folder_recipe, pictures, tmp_path, monkeypatch, records):
    whole = train(folder_recipe, tmp_path / "whole", data=pictures, device="cpu")
    assert whole.model(torch.rand(1, 3, 8, 8)).shape == (1, 2)
    saved = []
    save = robust_train.checkpoint.save

    def dying(*arguments):
        saved.append(save(*arguments))
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(robust_train.checkpoint, "save", dying)
        with pytest.raises(Killed):
            train(folder_recipe, tmp_path / "broken", data=pictures, device="cpu")
    assert "-00000002-" in saved[0].name
    report = train(folder_recipe, tmp_path / "broken", data=pictures, device="cpu", workers=2)
    assert report.resumed == 2
    assert_same(weights(report), weights(whole))
    assert records(report.folder) == records(whole.folder)

    (pictures / "train" / "cat" / "0.png").unlink()
    with pytest.raises(ResumeError, match=r"other data \(number of images was 12 and is now 11; files was"):
        train(folder_recipe, tmp_path / "whole", data=pictures, device="cpu")


def test_a_recipe_that_does_not_work_leaves_the_folder_free(tiny, tmp_path):
    """Or else the corrected command would be refused as another recipe."""
    for wrong, message in (
        ({"model.num_classes": 7}, "set model.num_classes to 10"),
        ({"model.name": "x"}, "no model"),
    ):
        with pytest.raises(ValueError, match=message):
            train(tiny.replace(**wrong), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_fails_before_the_first_checkpoint_leaves_the_folder_free(tiny, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(robust_train.loop, "set_learning_rate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tiny.replace(seed=3), tmp_path / "run", device="cpu")
    report = train(tiny, tmp_path / "run", device="cpu", resume=False)
    assert recipes.load(tmp_path / "run" / "config.yaml") == tiny
    assert_same(weights(report), weights(unbroken))


@pytest.mark.slow
def test_the_quick_goal_of_the_digits(tmp_path):
    """Linf 0.1, FGSM-RS, 20 epochs: at least 0.97 clean and 0.80 under PGD-20 with 3 restarts on the test images."""
    recipe = recipes.load("digits-fgsm-rs").replace(**{"attack.eps": 0.1, "epochs": 20})
    report = train(recipe, tmp_path, device="cpu")
    attack = PGD(threat=Linf(eps=0.1), steps=20, step_size=0.1 / 8, restarts=3)
    result = evaluate(report.model, digits("test"), conditions=(Clean(), Attacked(attack=attack)), progress=False)
    clean, robust = (row.value for row in result.rows)
    assert clean >= 0.97
    assert robust >= 0.80
