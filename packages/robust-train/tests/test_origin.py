"""Only the same recipe and data may go on."""

import copy

import pytest
import torch
from robust_train import ResumeError
from robust_train.origin import check_origin, describe_origin

DATA = {"number of images": 12, "classes": ["cat", "dog"], "files": "abc"}


@pytest.fixture
def origin(tiny):
    return describe_origin(tiny, DATA, torch.device("cpu"))


@pytest.fixture
def check(tmp_path):
    return lambda before, now: check_origin(tmp_path / "checkpoints" / "last.pt", before, now)


def test_versions_name_what_the_run_was_made_with(origin):
    versions = origin["versions"]
    assert versions["torch"] in (torch.__version__, torch.__version__.split("+")[0])
    assert {"python", "timm", "robust-train", "robust-attacks"} <= set(versions)
    assert versions["device"].startswith("cpu")
    assert versions["threads"] == "1"


def test_the_same_goes_on_without_a_word(origin, check, caplog):
    check(origin, copy.deepcopy(origin))
    assert not caplog.messages


def test_another_recipe_is_refused_with_the_settings_that_differ(tiny, origin, check):
    now = describe_origin(tiny.replace(**{"attack.eps": 0.2, "seed": 5}), DATA, torch.device("cpu"))
    differences = r"another recipe \(attack\.eps was 0\.15 and is now 0\.2; seed was 0 and is now 5\)"
    with pytest.raises(ResumeError, match=differences):
        check(origin, now)


def test_settings_that_change_no_number_may_change(tiny, origin, check):
    free = {"name": "n", "source": "s", "expected": "e", "checkpoint_every": 99, "evaluation.batch_size": 7}
    check(origin, describe_origin(tiny.replace(**free), DATA, torch.device("cpu")))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"number of images": 11}, "number of images was 12 and is now 11"),
        ({"classes": ["cat", "cow"]}, r"classes was \['cat', 'dog'\] and is now \['cat', 'cow'\]"),
        ({"files": "abd"}, "files was 'abc' and is now 'abd'"),
    ],
)
def test_other_data_are_refused_with_what_differs(changed, message, tiny, origin, check):
    with pytest.raises(ResumeError, match=rf"holds a run on other data \({message}\)"):
        check(origin, describe_origin(tiny, {**DATA, **changed}, torch.device("cpu")))


def test_other_versions_are_logged(origin, check, caplog):
    before = copy.deepcopy(origin)
    before["versions"] |= {"torch": "2.0", "threads": "8", "timm": "1"}
    check(before, origin)
    (line,) = caplog.messages
    assert "was begun with torch 2.0, threads 8 and goes on with torch " in line
    assert line.endswith("threads 1: not bit-equal to an unbroken run")
