"""Checkpoints: whole, or recognised as damaged."""

import hashlib
import os

import pytest
import torch
from robust_train import CheckpointWarning, ResumeError, checkpoint


def test_what_is_saved_comes_back(tmp_path):
    state = {"model": {"w": torch.arange(3.0)}, "update": 7, "best": {"robust": 0.5}, "none": None, "list": [1, "a"]}
    path = checkpoint.save(tmp_path, "last", 7, state)
    assert path.name == f"last-00000007-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.pt"
    found, read = checkpoint.newest(tmp_path)
    assert found == path
    assert torch.equal(read.pop("model")["w"], state.pop("model")["w"])
    assert read == state
    assert checkpoint.newest(tmp_path / "nothing here") is None


def test_the_newest_by_update_is_taken_whatever_its_kind_or_time(tmp_path):
    for kind, update in (("last", 100), ("best", 20), ("last", 3), ("last", 100_000_000)):
        checkpoint.save(tmp_path, kind, update, {"update": update})
    assert [path.name.split("-")[1] for path in checkpoint.listed(tmp_path)] == [
        "00000003",
        "00000020",
        "00000100",
        "100000000",
    ]
    assert checkpoint.newest(tmp_path)[1]["update"] == 100_000_000
    assert checkpoint.of_update(tmp_path, 20)[1]["update"] == 20
    assert checkpoint.of_update(tmp_path, 21) is None


def damage_tail(content):
    return content[: len(content) // 2]


def damage_bit(content):
    return content[:500] + bytes([content[500] ^ 1]) + content[501:]


@pytest.mark.parametrize("damage", [damage_tail, damage_bit, lambda _: b""], ids=["truncated", "one bit", "empty"])
def test_a_damaged_one_is_passed_over_with_a_message(damage, tmp_path, caplog):
    good = checkpoint.save(tmp_path, "last", 1, {"update": 1, "w": torch.rand(100)})
    bad = checkpoint.save(tmp_path, "last", 2, {"update": 2, "w": torch.rand(100)})
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.warns(
        CheckpointWarning, match=r"last-00000002.*is truncated or damaged.*last-00000001-.*\.pt is tried instead"
    ):
        found, state = checkpoint.newest(tmp_path)
    assert (found, state["update"]) == (good, 1)
    assert "is truncated or damaged" in caplog.text
    assert checkpoint.newest(tmp_path)[0] == good  # no second message: it was set aside
    assert bad.with_suffix(".damaged").exists()
    good.write_bytes(b"")
    with pytest.warns(CheckpointWarning, match="last-00000001.*there is no other to use instead"):
        assert checkpoint.newest(tmp_path) is None


def test_a_checkpoint_never_executes_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    checkpoint.save(tmp_path, "last", 1, {"trap": Trap()})
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        checkpoint.newest(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_keeps_the_last_two_and_the_best(tmp_path):
    for update in range(1, 6):
        checkpoint.save(tmp_path, "last", update, {"update": update})
        if update in (2, 4):
            checkpoint.save(tmp_path, "best", update, {"update": update})
    (tmp_path / ".last-00000009.pt.abc.tmp").write_bytes(b"left by a killed process")
    (tmp_path / "mine.pt").write_bytes(b"somebody else's")
    checkpoint.prune(tmp_path)
    kept = sorted(path.name.rpartition("-")[0] for path in checkpoint.listed(tmp_path))
    assert kept == ["best-00000004", "last-00000004", "last-00000005"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] in ".m") == ["mine.pt"]


def test_a_state_of_another_model_is_refused(tmp_path):
    model, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    state = {"model": model.state_dict()}
    checkpoint.restore(tmp_path / "c.pt", state, {"model": model})
    with pytest.raises(ResumeError, match=r"c\.pt does not fit the model or optimizer.*versions\.json"):
        checkpoint.restore(tmp_path / "c.pt", state, {"model": other})
    with pytest.raises(ResumeError, match="does not fit"):
        checkpoint.restore(tmp_path / "c.pt", state, {"average": model})
