"""Evaluations that are kept in a folder: resumed, killed, divided, and always the same result."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from robust_attacks import APGD, PGD, Linf, Square, WorstCase
from robust_bench import EvaluationWarning, Interrupted, Result, World, evaluate
from robust_bench.cli import main
from robust_bench.conditions import Attacked, Clean, Corrupted, Suite
from robust_bench.judge import SUITES
from robust_bench.records import read_records
from robust_bench.runner import EVALUATIONS
from robust_bench.shards import FINGERPRINT, RECORDS, Shards
from robust_models import create_model
from torch.utils.data import DataLoader, Dataset, TensorDataset

THREAT = Linf(eps=0.12)
CONDITIONS = (
    Clean(),
    Attacked(attack=PGD(threat=THREAT, steps=3)),
    Suite(suite=WorstCase([APGD(threat=THREAT, steps=4), Square(threat=THREAT, queries=20)])),
    Corrupted(corruption="gaussian_noise", severity=5, preset="cifar"),
)


def numbers(result):
    return [(row.condition, row.settings, row.correct, row.count) for row in result.rows]


def seen(folder):
    return list(read_records(folder / RECORDS))


class Failing(Dataset):
    """Raises once, at one image."""

    def __init__(self, tensors, at, error):
        self.tensors, self.at, self.error = tensors, at, error
        self.fingerprint = "grey"

    def __len__(self):
        return len(self.tensors)

    def __getitem__(self, index):
        if index == self.at:
            self.at = None
            raise self.error
        return self.tensors[index]


@pytest.mark.parametrize(("batch_size", "shard_size"), [(1, 4), (4, 4), (8, 4), (64, 5), (3, 100)])
def test_a_kept_evaluation_gives_the_result_of_one_that_is_not(model, grey, tmp_path, batch_size, shard_size):
    expected = evaluate(model, grey, conditions=CONDITIONS)
    result = evaluate(
        model, grey, conditions=CONDITIONS, batch_size=batch_size, out=tmp_path / "run", shard_size=shard_size
    )
    assert numbers(result) == numbers(expected)
    about = dict(result.settings["data"]["TensorDataset"])
    assert len(about.pop("sha256")) == 64
    assert {"TensorDataset": about} == expected.settings["data"]
    found = seen(tmp_path / "run")
    assert [each.id for each in found] == list(range(21))
    assert [each.label for each in found] == grey.tensors[1].tolist()
    for number, row in enumerate(result.rows):
        assert sum(each.right[number] for each in found) == row.correct
    with torch.no_grad():
        predictions = model.eval()(grey.tensors[0]).argmax(dim=1)
    assert [each.predictions[0] for each in found] == predictions.tolist()
    broken = [each.broken_by[2] for each in found]
    assert broken.count(None) == result.rows[2].correct
    assert set(broken) == {None, "clean", "apgd-ce"}


def test_the_records_are_the_same_bytes_at_any_batch_size(model, grey, tmp_path):
    for size in (1, 5, 64):
        evaluate(model, grey, conditions=CONDITIONS, batch_size=size, out=tmp_path / str(size), shard_size=5)
    texts = [[dataclasses.astuple(each) for each in seen(tmp_path / str(size))] for size in (1, 5, 64)]
    assert texts[0] == texts[1] == texts[2]


def test_a_second_call_computes_nothing(model, grey, tmp_path):
    first = evaluate(model, grey, conditions=CONDITIONS, out=tmp_path, shard_size=4)
    model.forward = None  # would fail
    again = evaluate(model, grey, conditions=CONDITIONS, out=tmp_path, shard_size=4)
    assert again.rows == first.rows


def test_only_what_is_missing_is_computed(model, grey, tmp_path):
    expected = evaluate(model, grey, conditions=CONDITIONS, out=tmp_path / "whole", shard_size=4)
    evaluate(model, grey, conditions=CONDITIONS, out=tmp_path / "cut", shard_size=4)
    for shard in (1, 5):
        (tmp_path / "cut" / "shards" / f"{shard:06d}.jsonl.gz").unlink()
    shown = []
    model.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
    again = evaluate(model, grey, conditions=CONDITIONS[:1], out=tmp_path / "clean", shard_size=4)
    for shard in (1, 5):
        (tmp_path / "clean" / "shards" / f"{shard:06d}.jsonl.gz").unlink()
    shown.clear()
    assert numbers(evaluate(model, grey, conditions=CONDITIONS[:1], out=tmp_path / "clean", shard_size=4)) == numbers(
        again
    )
    assert shown == [5, 2, 2]  # images 4..7 and 20, and the first look at two of them
    again = evaluate(model, grey, conditions=CONDITIONS, out=tmp_path / "cut", shard_size=4)
    assert numbers(again) == numbers(expected)
    assert seen(tmp_path / "cut") == seen(tmp_path / "whole")


@pytest.mark.parametrize("batch_size", [2, 64])
def test_ctrl_c_keeps_what_is_finished_and_tells_it(model, grey, tmp_path, batch_size):
    data = Failing(grey, at=13, error=KeyboardInterrupt("stop"))
    with pytest.raises(Interrupted, match="stop") as stop:
        evaluate(model, data, conditions=CONDITIONS[:2], batch_size=batch_size, out=tmp_path, shard_size=4)
    partial = stop.value.result
    if batch_size == 64:  # the first batch had not come together
        assert partial is None
        assert not list(tmp_path.iterdir())
    else:
        assert [row.count for row in partial.rows] == [12, 12]
        assert partial.settings["data"]["Failing"]["images"] == 12
        assert partial.settings["data"]["Failing"]["of"] == 21
        assert partial.rows[0].low < partial.rows[0].value
    whole = evaluate(model, data, conditions=CONDITIONS[:2], batch_size=batch_size, out=tmp_path, shard_size=4)
    assert numbers(whole) == numbers(evaluate(model, grey, conditions=CONDITIONS[:2]))


def test_ctrl_c_without_a_folder_tells_what_was_counted(model, grey):
    data = Failing(grey, at=13, error=KeyboardInterrupt("stop"))
    with pytest.raises(Interrupted) as stop:
        evaluate(model, data, conditions=CONDITIONS[:1], batch_size=4)
    assert stop.value.result.rows[0].count == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"conditions": CONDITIONS[:1]}, "conditions was"),
        ({"data": "labels"}, "data_sha256 was"),
        ({"model": "weights"}, "model_sha256 was"),
        ({"shard_size": 5}, "shard_size was 4, is 5"),
    ],
)
def test_another_evaluation_in_the_same_folder_is_refused(model, grey, tmp_path, change, message):
    settings = {"conditions": CONDITIONS[:2], "seed": 0, "shard_size": 4}
    evaluate(model, grey, out=tmp_path, **settings)
    data = grey
    if change.pop("data", None):
        data = TensorDataset(grey.tensors[0], 1 - grey.tensors[1])
    if change.pop("model", None):
        with torch.no_grad():
            model.scale += 1
    with pytest.raises(ValueError, match="holds another evaluation") as refusal:
        evaluate(model, data, out=tmp_path, **settings | change)
    assert message in str(refusal.value)


def constant(images):
    return torch.stack((2 * images.new_ones(len(images)), images.new_zeros(len(images))), dim=1)


class Items(Dataset):
    """Like any data set of a user: it says nothing of itself."""

    def __init__(self, tensors):
        self.tensors = tensors

    def __len__(self):
        return len(self.tensors)

    def __getitem__(self, index):
        return self.tensors[index]


def test_models_and_data_that_say_nothing_of_themselves_are_told_apart(model, grey, tmp_path):
    evaluate(constant, Items(grey), out=tmp_path)
    with pytest.raises(ValueError, match="data_sha256 was"):
        evaluate(constant, Items(TensorDataset(grey.tensors[0], 1 - grey.tensors[1])), out=tmp_path)
    with pytest.raises(TypeError, match="which a resumed run could not recognise"):
        evaluate(lambda images: constant(images), grey, out=tmp_path / "b")
    with pytest.raises(TypeError, match=r"a function of .* could not recognise"):
        evaluate(
            model, grey, conditions=(Attacked(attack=lambda model, images, labels, *, random: images),), out=tmp_path
        )
    for activation in (torch.nn.ReLU(), torch.nn.GELU()):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2), activation)
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        if isinstance(activation, torch.nn.ReLU):
            evaluate(network, grey, out=tmp_path / "c")
        else:
            with pytest.raises(ValueError, match="model_sha256 was"):
                evaluate(network, grey, out=tmp_path / "c")


def test_the_first_batch_is_looked_at_closely_whatever_its_ids_are(grey, tmp_path):
    class Softmax(torch.nn.Module):
        def forward(self, images):
            return constant(images) / 2

    for rank in (1, 0):
        with pytest.warns(EvaluationWarning, match="probabilities"):
            evaluate(Softmax(), grey, out=tmp_path, shard_size=4, world=World(rank=rank, size=2))


def test_a_job_without_a_share_is_no_error(model, grey, tmp_path):
    result = evaluate(model, grey, out=tmp_path, world=World(rank=3, size=4))
    assert result.rows == ()
    assert evaluate(model, grey, out=tmp_path, world=World(rank=0, size=4)).rows[0].count == 21


def test_what_cannot_be_kept_is_refused(model, grey, tmp_path):
    with pytest.raises(TypeError, match="needs a data set with a length and numbered items, got DataLoader"):
        evaluate(model, DataLoader(grey, 4), out=tmp_path)
    with pytest.raises(ValueError, match="only an evaluation with a folder"):
        evaluate(model, grey, shard_size=4)
    with pytest.raises(ValueError, match="only an evaluation with a folder"):
        evaluate(model, grey, world=World(rank=0, size=2))
    with pytest.raises(ValueError, match="shard_size must be at least 1"):
        evaluate(model, grey, out=tmp_path, shard_size=0)


def test_separate_jobs_have_all_images_between_them(model, grey, tmp_path):
    expected = evaluate(model, grey, conditions=CONDITIONS, out=tmp_path / "whole", shard_size=4)
    parts = [
        evaluate(
            model, grey, conditions=CONDITIONS, out=tmp_path / "jobs", shard_size=4, world=World(rank=rank, size=3)
        )
        for rank in (2, 0, 1)
    ]
    assert [part.rows[0].count for part in parts] == [5, 13, 21]
    assert numbers(parts[-1]) == numbers(expected)
    assert seen(tmp_path / "jobs") == seen(tmp_path / "whole")


WORK = """
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from robust_attacks import APGD, Linf, Square, WorstCase
from robust_bench import benchmarks, evaluate
from robust_bench.conditions import Clean, Suite
from robust_bench.world import torchrun
from torch import nn

torch.set_num_threads(1)
threat = Linf(eps=0.02)
suite = WorstCase([APGD(threat=threat, steps=10), Square(threat=threat, queries=60)])
folder = Path(sys.argv[1])


def work():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    passes = []
    model.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    with torchrun():
        result = evaluate(
            model, "digits", conditions=(Clean(), Suite(suite=suite)), out=folder, batch_size=1, shard_size=2
        )
    told = folder.with_name(f"{folder.name}-rank-{os.environ.get('RANK', 0)}.json")
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    told.write_text(json.dumps([result.rows[1].correct, result.rows[1].count, sum(passes), restarts]))

"""
RUN = WORK + "work()"
KILL = (
    WORK
    + """
def shards():
    return len(list(folder.glob("shards/0*")))


benchmarks.load("digits")  # the children find what takes long to load
draws = random.Random(0)
kills = 0
while True:
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    finished, more = shards(), draws.randint(0, 1) if kills < 30 else 999
    delay = draws.random() * 0.05
    while shards() < finished + more and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)  # one that has ended is still there, as nobody has waited for it
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    kills += 1
print(kills)
"""
)


def start(script, folder, *launcher):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*(launcher or (sys.executable,)), str(script), str(folder)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The script, and the folder of a run that nothing disturbed."""
    place = tmp_path_factory.mktemp("kill")
    (place / "script.py").write_text(RUN)
    (place / "kill.py").write_text(KILL)
    process = start(place / "script.py", place / "whole")
    _, error = process.communicate()
    assert process.returncode == 0, error
    correct, count, _, _ = told(place / "whole")[0]
    assert 0 < correct < count == 450
    return place


def told(folder):
    """What the ranks have told: correct, count, images in the model, restarts."""
    return [json.loads(file.read_text()) for file in sorted(folder.parent.glob(f"{folder.name}-rank-*.json"))]


def wait_for(condition, process):
    while process.poll() is None and not condition():
        time.sleep(0.002)


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_records(unbroken, tmp_path):
    process = start(unbroken / "kill.py", tmp_path / "run")
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert int(out.split()[-1]) == 30, out
    assert seen(tmp_path / "run") == seen(unbroken / "whole")
    assert not (tmp_path / "run" / SUITES).exists()


@pytest.mark.parametrize("ranks", [2, 4])
def test_several_ranks_give_the_records_of_one_also_when_one_is_killed(unbroken, tmp_path, ranks):
    folder = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    process = start(unbroken / "script.py", folder, *launcher, "--max-restarts=2", "--monitor-interval=0.1")
    wait_for(lambda: len(list((folder / "shards").glob("0*"))) >= 3, process)
    workers = [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if str(folder).encode() in _command(entry) and b"torch.distributed.run" not in _command(entry)
    ]
    assert workers
    os.kill(max(workers), signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode == 0, error
    ((correct, count, passes, _),) = told(unbroken / "whole")
    assert len(told(folder)) == ranks
    assert all(each[:2] == [correct, count] and each[3] >= 1 for each in told(folder))  # the same for all, restarted
    assert sum(each[2] for each in told(folder)) < 1.2 * passes  # divided among them
    assert seen(folder) == seen(unbroken / "whole")


def _command(entry):
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_the_command_merges_what_separate_jobs_have_done(tmp_path, capsys):

    torch.save(create_model("small_cnn_8").state_dict(), tmp_path / "model.pt")
    common = ["run", "--model", "small_cnn_8", "--weights", str(tmp_path / "model.pt")]
    common += ["--benchmarks", "digits,digits-pgd"]
    common += ["--device", "cpu", "--attack.eps", "0.05", "--attack.steps", "2", "--shard_size", "100"]
    assert main([*common, "--out", str(tmp_path / "whole")]) == 0
    for part in ("1/2", "0/2"):
        assert main([*common, "--out", str(tmp_path / "jobs"), "--shard", part]) == 0
        assert f"part {part} is done" in capsys.readouterr().out
        assert not (tmp_path / "jobs" / "result.json").exists()
    kept = Shards.found(tmp_path / "jobs" / EVALUATIONS / "digits")
    lost = tmp_path / "jobs" / EVALUATIONS / "digits" / "shards" / "000003.jsonl.gz"
    whole = lost.read_bytes()
    lost.unlink()
    assert kept.missing() == [3]
    assert main(["merge", str(tmp_path / "jobs")]) == 2
    assert "shard 3 is missing" in capsys.readouterr().err
    lost.write_bytes(whole)
    assert main(["merge", str(tmp_path / "jobs")]) == 0

    expected, merged = (Result.load(tmp_path / name / "result.json") for name in ("whole", "jobs"))
    assert numbers(merged) == numbers(expected)
    assert merged.benchmark == expected.benchmark == "digits,digits-pgd"
    assert merged.settings["data"] == expected.settings["data"]
    assert main(["merge", str(tmp_path / "nothing")]) == 2
    assert "no evaluations in" in capsys.readouterr().err
    assert (tmp_path / "jobs" / EVALUATIONS / "digits" / FINGERPRINT).is_file()


MEMORY = """
import resource
import sys

import torch
from robust_bench import evaluate
from torch.utils.data import Dataset


class Grey(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.full((1, 8, 8), index % 256 / 255), index % 2


def model(images):
    return torch.stack((images.mean(dim=(1, 2, 3)), 0.5 - images.mean(dim=(1, 2, 3))), dim=1)


def peak(size):
    result = evaluate(model, Grey(size), out=f"{sys.argv[1]}/{size}", batch_size=256)
    assert result.rows[0].count == size
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


peak(2_000)
few = peak(10_000)
print(few, peak(100_000))
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    (tmp_path / "memory.py").write_text(MEMORY)
    process = start(tmp_path / "memory.py", tmp_path)
    out, error = process.communicate()
    assert process.returncode == 0, error
    few, many = (int(kilobytes) / 1024 for kilobytes in out.split())
    assert many < few + 15, out  # 90,000 images more, which in memory would be 23 MB
