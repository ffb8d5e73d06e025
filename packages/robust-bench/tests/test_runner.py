"""One run over several benchmarks."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from robust_bench import Result
from robust_bench.benchmarks import Sweep
from robust_bench.corruptions import available
from robust_bench.merging import join, merge
from robust_bench.runner import Run
from robust_models import create_model

SMALL = Sweep(eps=(0.1,), steps=2, restarts=1)


def run(folder, **changes):
    settings = {
        "model": "small_cnn_8",
        "benchmarks": "digits,digits-c, digits-pgd",
        "out": folder,
        "pretrained": False,
        "device": "cpu",
        "batch_size": 450,
        "attack": SMALL,
    }
    (result,) = Run(**settings | changes)()
    return result


def test_a_run_writes_one_result_with_every_condition_once(tmp_path):
    result = run(tmp_path / "a", name="untrained", seed=4)
    assert Result.load(tmp_path / "a" / "result.json") == result
    assert result.benchmark == "digits,digits-c,digits-pgd"
    assert (result.model, result.seed) == ("untrained", 4)
    labels = [(row.benchmark, row.condition) for row in result.rows]
    assert labels[0] == ("digits", "clean")
    assert labels[-1] == ("digits", "PGD-2, Linf 0.1")
    assert len(labels) == len(set(labels)) == 2 + 5 * len(available(8, 8))
    assert result.settings["model"]["spec"] == "small_cnn_8"
    assert set(result.settings["data"]) == {"digits"}


def test_the_attacks_share_the_clean_row_of_their_data(tmp_path):
    result = run(tmp_path, benchmarks="digits,digits-pgd")
    assert [(row.benchmark, row.settings["kind"]) for row in result.rows] == [("digits", "clean"), ("digits", "attack")]
    assert result.benchmark == "digits,digits-pgd"


def test_what_was_asked_for_is_stored_even_if_it_adds_nothing(tmp_path):
    assert run(tmp_path, benchmarks="digits-pgd,digits").benchmark == "digits-pgd,digits"


def test_what_is_kept_does_not_depend_on_what_else_was_asked_for(tmp_path, monkeypatch):
    torch.save(create_model("small_cnn_8").state_dict(), tmp_path / "model.pt")
    settings = {"weights": tmp_path / "model.pt", "pretrained": None}
    first = run(tmp_path / "out", benchmarks="digits-pgd", **settings)
    assert [row.settings["kind"] for row in first.rows] == ["clean", "attack"]
    monkeypatch.setattr(torch.nn.Conv2d, "forward", None)  # nothing is computed again
    again = run(tmp_path / "out", benchmarks="digits,digits-pgd", **settings)
    assert again.rows == first.rows
    assert again.benchmark == merge(tmp_path / "out")[0].benchmark == "digits,digits-pgd"


def test_a_benchmark_that_adds_nothing_has_no_rows(tmp_path):
    result = run(tmp_path, benchmarks=["digits", "digits", "digits"])
    assert [row.condition for row in result.rows] == ["clean"]


def test_a_folder_is_resized_to_the_models_own_size(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.effect_noise((50, 40), 50).convert("RGB").save(tmp_path / "data" / name / "0.png")
    settings = {"model": "small_cnn_32", "benchmarks": "folder", "data": tmp_path / "data", "workers": 0}
    result = run(tmp_path, **settings)
    assert result.settings["data"]["folder"]["preprocessing"]["steps"] == "Resize(32, bilinear), CenterCrop(32)"
    assert result.settings["model"]["num_classes"] == 2
    result = run(tmp_path / "b", **settings | {"model": "timm:resnet18", "size": 64})
    assert result.settings["data"]["folder"]["preprocessing"]["size"] == 64


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"benchmarks": " , "}, "at least one benchmark"),
        ({"benchmarks": "digits,nothing"}, "unknown benchmark 'nothing'"),
        ({"benchmarks": "folder"}, "needs its images"),
        ({"data": Path("cats")}, "'cats' is in vain"),
        ({"device": "foo"}, "device 'foo'"),
        ({"device": "meta"}, "device 'meta'"),
    ],
)
def test_impossible_runs_are_errors_and_write_nothing(tmp_path, changes, word):
    with pytest.raises(ValueError, match=word):
        run(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_benchmarks_of_different_data_share_a_run(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.effect_noise((40, 50), 20).convert("L").save(tmp_path / "data" / name / "0.png")
    settings = {"model": "small_cnn_32", "in_chans": 3, "num_classes": 2, "workers": 0}
    result = run(tmp_path / "out", benchmarks="folder,folder-pgd", data=tmp_path / "data", **settings)
    assert {row.benchmark for row in result.rows} == {"folder"}
    assert result.settings["parts"] == ["folder", "folder-pgd"]


def test_nothing_cannot_be_joined():
    with pytest.raises(ValueError, match="no result"):
        join([], "digits")


def test_a_folder_of_another_model_is_refused(tmp_path):
    torch.manual_seed(0)
    for name in ("a", "b"):
        torch.save(create_model("small_cnn_8").state_dict(), tmp_path / f"{name}.pt")
    settings = {"pretrained": None, "benchmarks": "digits"}
    run(tmp_path / "out", weights=tmp_path / "a.pt", **settings)
    with pytest.raises(ValueError, match=r"holds digits of another model .* a folder of its own"):
        run(tmp_path / "out", weights=tmp_path / "b.pt", **settings | {"benchmarks": "digits-pgd"})


def test_jobs_are_merged_with_what_they_skipped_and_warned_of(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            Image.effect_noise((40, 50), 20).convert("RGB").save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "data" / "dog" / "3.png").write_bytes(b"nothing")
    torch.manual_seed(0)
    torch.save(create_model("small_cnn_32", num_classes=2, in_chans=3).state_dict(), tmp_path / "m.pt")
    settings = {
        "model": "small_cnn_32",
        "pretrained": None,
        "weights": tmp_path / "m.pt",
        "benchmarks": "folder,folder-pgd",
    }
    settings |= {"data": tmp_path / "data", "workers": 0, "shard_size": 2, "on_error": "skip"}
    alone = run(tmp_path / "alone", **settings)
    for job in ("1/2", "0/2"):
        run(tmp_path / "jobs", shard=job, **settings)
    (merged,) = merge(tmp_path / "jobs")
    assert [(row.condition, row.correct, row.count) for row in merged.rows] == [
        (row.condition, row.correct, row.count) for row in alone.rows
    ]
    assert merged.settings["data"] == alone.settings["data"]
    assert merged.settings["data"]["folder"]["skipped"] == 1
    assert "accuracy" not in merged.settings
