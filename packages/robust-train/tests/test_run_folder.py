"""The folder of a run."""

import csv
import json

import pytest
import torch
from robust_train import Recipe, ResumeError
from robust_train.run_folder import Window, open_run, prepare


@pytest.fixture
def run(tiny, tmp_path):
    run = open_run(tmp_path, tiny, resume=True)
    prepare(run, tiny, torch.device("cpu"))
    return run


def test_writes_the_whole_recipe_and_opens_again_for_the_same(tiny, run):
    assert Recipe.from_yaml((run.path / "config.yaml").read_text()) == tiny
    assert open_run(run.path, tiny, resume=True) == run
    assert run.checkpoints.is_dir()


def test_nothing_is_written_before_the_settings_are_known_to_work(tiny, tmp_path):
    open_run(tmp_path / "run", tiny, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_another_recipe_is_refused_with_the_settings_that_differ(tiny, run):
    changed = tiny.replace(**{"attack.eps": 0.2, "seed": 5})
    differences = r"another recipe \(attack\.eps was 0\.15 and is now 0\.2; seed was 0 and is now 5\)"
    with pytest.raises(ResumeError, match=differences):
        open_run(run.path, changed, resume=True)
    with pytest.raises(ResumeError, match="already holds a run"):
        open_run(run.path, tiny, resume=False)
    with pytest.raises(NotADirectoryError, match=r"config\.yaml is a file"):
        open_run(run.path / "config.yaml", tiny, resume=True)


def test_lines_after_an_update_and_broken_ones_are_dropped(run, tmp_path):
    for update in (1, 2, 2, 3):
        run.append({"update": update, "loss": 0.1 * update})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"update": 2, "lo')
    kept = run.keep_until(2)
    assert [record["update"] for record in kept] == [1, 2, 2]
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == kept
    run.append({"update": 3})
    assert len(run.keep_until(9)) == 4
    (tmp_path / "metrics.jsonl").unlink()
    assert run.keep_until(9) == []


def test_numbers_that_are_none_do_not_get_into_the_records(run, tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        run.append({"update": 1, "loss": float("nan")})


def test_the_summary_has_a_line_per_epoch(run, tmp_path):
    run.write_summary(
        [{"kind": "epoch", "epoch": 0, "loss": 1.0}, {"kind": "epoch", "epoch": 1, "loss": 0.5, "robust": 0.3}]
    )
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert rows == [{"epoch": "0", "loss": "1.0", "robust": ""}, {"epoch": "1", "loss": "0.5", "robust": "0.3"}]


def test_versions_name_what_the_run_was_made_with(run, tmp_path):
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert {"python", "timm", "robust-train", "robust-attacks"} <= set(versions)
    assert versions["device"].startswith("cpu")


def test_a_window_gives_means_over_images_and_goes_through_a_checkpoint():
    window = Window()
    window.add({"loss": torch.tensor(6.0), "accuracy": torch.tensor(1)}, images=2)
    window.add({"loss": torch.tensor(3.0), "accuracy": torch.tensor(4)}, images=4)
    assert window.means() == {"loss": 1.5, "accuracy": 5 / 6}
    other = Window()
    other.load_state_dict(window.state_dict(), torch.device("cpu"))
    window.add({"loss": torch.tensor(1.0), "accuracy": torch.tensor(0)}, images=1)
    assert other.means() == {"loss": 1.5, "accuracy": 5 / 6}
    assert window.is_finite()
    window.add({"loss": torch.tensor(float("inf"))}, images=1)
    assert not window.is_finite()
