"""The folder of a run."""

import csv
import json
import sys

import pytest
from robust_train import Recipe, ResumeError
from robust_train.run_folder import open_run


@pytest.fixture
def run(tmp_path):
    run = open_run(tmp_path)
    with run.locked():
        yield run


def test_the_recipe_and_the_versions_can_be_read_again(tiny, run):
    run.describe(tiny, {"torch": "2.6"})
    assert Recipe.from_yaml((run.path / "config.yaml").read_text()) == tiny
    assert json.loads((run.path / "versions.json").read_text()) == {"torch": "2.6"}
    assert open_run(run.path) == run
    assert run.checkpoints.is_dir()


def test_nothing_is_written_before_it_is_locked(tmp_path):
    open_run(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_says_so(run):
    (run.path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file: the run needs a folder"):
        open_run(run.path / "file")
    message = r"the run folder .*file.inside cannot be made or written to: Not a directory"
    with pytest.raises(NotADirectoryError, match=message), open_run(run.path / "file" / "inside").locked():
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_a_second_process_is_kept_out_until_the_first_one_ends(tmp_path):
    """The lock belongs to the opened file, so a second opening stands for a second process."""
    with open_run(tmp_path).locked():
        message = "another process trains in"
        with pytest.raises(ResumeError, match=message), open_run(tmp_path).locked():
            pass
    with open_run(tmp_path).locked():
        assert (tmp_path / ".lock").exists()


def test_lines_that_the_checkpoint_does_not_have_are_dropped(run, tmp_path):
    lines = [{"kind": "window", "update": update} for update in (1, 2, 2, 3)]
    epoch = {"kind": "epoch", "epoch": 0, "update": 2, "loss": 0.1}
    for record in [*lines[:3], epoch, lines[3]]:
        run.append(record)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "window", "update": 2, "lo')

    def kept():
        return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    run.keep(2, [epoch])
    assert kept() == [*lines[:3], epoch]
    run.append(lines[3])
    run.keep(9, [epoch])
    assert kept() == [*lines[:3], epoch, lines[3]]
    run.keep(2, [])  # the checkpoint was written before the evaluation
    assert kept() == lines[:3]


def test_lines_of_epochs_that_are_lost_come_back_from_the_checkpoint(run, tmp_path, caplog):
    epochs = [{"kind": "epoch", "epoch": index, "update": 2 * index + 2, "loss": 0.1 / 3} for index in range(3)]
    windows = [{"kind": "window", "epoch": 2, "update": 5}, {"kind": "window", "epoch": 2, "update": 6}]
    for record in [epochs[0], *windows, epochs[2]]:
        run.append(record)
    run.keep(6, epochs)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [*epochs[:2], *windows, epochs[2]]
    assert "lacked the lines of 1 epochs" in caplog.text
    assert (tmp_path / "summary.csv").read_text().count("\n") == 4


def test_numbers_that_are_none_do_not_get_into_the_records(run, tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        run.append({"update": 1, "loss": float("nan")})


def test_the_summary_has_a_line_per_epoch(run, tmp_path):
    run.write_summary(
        [{"kind": "epoch", "epoch": 0, "loss": 1.0}, {"kind": "epoch", "epoch": 1, "loss": 0.5, "robust": 0.3}]
    )
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert rows == [{"epoch": "0", "loss": "1.0", "robust": ""}, {"epoch": "1", "loss": "0.5", "robust": "0.3"}]
