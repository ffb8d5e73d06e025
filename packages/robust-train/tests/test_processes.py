"""Two processes that train together: the same weights as one, and as each other."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import robust_train.loop
import torch
from robust_attacks import PGD, ImageRandom, Linf
from robust_optim import AWP, SAM
from robust_train import Interrupted, SetupError, recipes, train
from robust_train.objectives import Adversarial
from robust_train.processes import Processes, join
from robust_train.run_folder import TIMES
from robust_train.schedule import factor
from robust_train.update import Losses, Passes
from torch import nn

SMALL = {
    "epochs": 1, "batch_size": 128, "evaluation.every": 1, "evaluation.steps": 1, "accumulate": 2, "optimizer": {
        "name": "momentum", "lr": 0.05, "weight_decay": 0.001, "momentum": 0.9, "betas": None,
        "decay_all": True, "layer_decay": None,
    },
    "average": {"decay": 0.9, "warmup": "power", "start": 0}, "clip": 1.0, "checkpoint_every": 4, "log_every": 3,
}  # fmt: skip

WRAPPERS = {
    "plain": lambda base, module: base,
    "sam": lambda base, module: SAM(base, rho=0.1, sync="global", model=module),
    "sam per rank": lambda base, module: SAM(base, rho=0.1, sync="per_rank", model=module),
    "awp": lambda base, module: AWP(base, gamma=0.05, sync="global", model=module),
}


def updates(name, processes):
    """Weights after five updates of PGD training in float64 on shared batches, and how often gradients travelled."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    objective = Adversarial(attack=PGD(threat=Linf(eps=0.1), steps=3))
    module = processes.wrap(Losses(model, objective))
    optimizer = WRAPPERS[name](torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), module)
    rounds = []
    if processes.size > 1:

        def count(_, bucket):
            rounds.append(bucket.is_last())
            share = bucket.buffer().div_(processes.size)
            return torch.distributed.all_reduce(share, async_op=True).get_future().then(lambda done: done.value()[0])

        module.register_comm_hook(None, count)
    draw = torch.Generator().manual_seed(1)
    for update in range(5):
        images = torch.rand(9, 1, 4, 4, generator=draw, dtype=torch.float64)
        labels = torch.randint(4, (9,), generator=draw)
        x, y, ids = (processes.part(whole) for whole in (images, labels, torch.arange(9)))
        made = objective.perturb(model, x, y, ImageRandom(update, ids))
        passes = Passes(
            module=module,
            optimizer=optimizer,
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            precision=None,
            parts=[(x, made, y)],
            images=9 / processes.size,
        )
        passes.step(None)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), sum(rounds)


def interrupted_train(recipe, out):
    """A training that is stopped after its seventh update and goes on."""
    seen = []

    def stop(recipe, update, *rest):
        seen.append(update)
        if update == 7 and seen.count(7) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return factor(recipe, update, *rest)

    robust_train.loop.factor = stop
    with contextlib.suppress(Interrupted):
        train(recipe, out, device="cpu")
    return train(recipe, out, device="cpu")


def together_in(out):
    """What each of two processes does."""
    torch.set_num_threads(1)
    with join(torch.device("cpu")) as processes:
        found = {name: updates(name, processes) for name in WRAPPERS}
        plainly = recipes.load("digits-fgsm-rs").replace(**SMALL)
        report = train(plainly, Path(out) / "run", device="cpu")
        found["train"] = (report.model.state_dict(), len(report.history))
        normed = plainly.replace(**{"model.name": "test_resnet", "model.img_size": None, "attack.batch_norm": "eval"})
        report = train(normed, Path(out) / "normed", device="cpu")
        found["normed"] = (report.model.state_dict(), len(report.history))
        found["resumed"] = (interrupted_train(normed, Path(out) / "resumed").model.state_dict(), 0)
        torch.save(found, Path(out) / f"{processes.rank}.pt")


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes found, and the folder of their run."""
    out = tmp_path_factory.mktemp("together")
    script = out / "script.py"
    script.write_text(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('cases', {str(Path(__file__).resolve())!r})\n"
        "cases = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(cases)\n"
        f"cases.together_in({str(out)!r})\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in (0, 1)], out / "run"


@pytest.mark.parametrize("name", WRAPPERS)
def test_two_processes_have_equal_weights_which_are_those_of_one(name, together):
    first, second = (found[name][0] for found in together[0])
    alone = updates(name, Processes())[0]
    assert torch.equal(first, second)
    if name == "sam per rank":  # every process has a worst neighbour of its own: m-sharpness
        assert (first - alone).abs().max() > 1e-7
        torch.testing.assert_close(first, alone, rtol=0.05, atol=0.01)
    else:
        torch.testing.assert_close(first, alone, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("name", "expected"), [("plain", 5), ("sam", 10), ("sam per rank", 5), ("awp", 10)])
def test_gradients_travel_once_per_update_and_never_in_the_attack(name, expected, together):
    assert [found[name][1] for found in together[0]] == [expected, expected]


def test_a_whole_training_ends_alike(together, tmp_path):
    (first, epochs), (second, _) = (found["train"] for found in together[0])
    alone = train(recipes.load("digits-fgsm-rs").replace(**SMALL), tmp_path, device="cpu")
    assert epochs == 1
    for entry, value in alone.model.state_dict().items():
        assert torch.equal(first[entry], second[entry]), entry
        torch.testing.assert_close(first[entry], value, rtol=1e-3, atol=1e-4)


def test_one_of_them_writes_the_run_with_the_sums_of_both(together, tmp_path):
    alone = train(recipes.load("digits-fgsm-rs").replace(**SMALL), tmp_path, device="cpu")
    read = lambda folder: [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]  # noqa: E731
    ours, theirs = read(together[1]), read(alone.folder)
    assert [line["update"] for line in ours] == [line["update"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["adversarial_accuracy"] == pytest.approx(other["adversarial_accuracy"], abs=0.01)
    assert (together[1] / "model.safetensors").is_file()


def test_a_training_that_was_stopped_goes_on_bit_for_bit_with_the_same_sums(together):
    for found in together[0]:
        whole, resumed = found["normed"][0], found["resumed"][0]
        assert all(torch.equal(whole[entry], resumed[entry]) for entry in whole)
    lines = [
        [
            {name: value for name, value in json.loads(line).items() if name not in TIMES}
            for line in (together[1].parent / run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in ("normed", "resumed")
    ]
    assert lines[0] == lines[1]


def test_the_average_has_the_statistics_of_all_processes(together):
    first, second = (found["normed"][0] for found in together[0])
    assert any("running_mean" in entry for entry in first)
    assert all(torch.equal(first[entry], second[entry]) for entry in first)


def test_a_batch_that_leaves_a_process_without_images_is_refused():
    Processes(1, 4).check(4)
    with pytest.raises(SetupError, match=r"has 3 images for 4 processes: set data\.drop_last"):
        Processes(1, 4).check(3)


def test_alone_everything_is_itself():
    alone, items = Processes(), torch.arange(5)
    assert torch.equal(alone.part(items), items)
    assert alone.first
    assert alone.agree(True)
    assert not alone.agree(False)
    assert alone.from_first("x") == "x"
    assert alone.gathered(3) == [3]
    assert alone.totals([1.5, 2.0]) == [1.5, 2.0]


def test_parts_of_a_batch_cover_it_once():
    items = torch.arange(7)
    parts = [Processes(rank, 3).part(items) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == items.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
