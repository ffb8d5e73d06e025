"""Small things to train with every method; and tests marked `two_ranks` run in two processes, connected by gloo."""

import json
import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed
from robust_optim import AWP, ESAM, GSAM, SAM, LookSAM
from torch import nn
from torch.nn.functional import cross_entropy

RANKS = 2
PATIENCE = 120  # seconds that a rank waits for the other before it is a failure and not a hang
RANK = os.environ.get("ROBUST_OPTIM_TEST_RANK")  # set in the processes that run the bodies of the tests
PLACE = Path(os.environ.get("ROBUST_OPTIM_TEST_PLACE", "."))  # where the two meet and write down how the tests ended

_finished: dict[Path | None, "TwoProcesses"] = {}  # by the file whose tests they have run, None for all


def pytest_configure(config):
    config.addinivalue_line("markers", "two_ranks: runs in two processes at once, and must pass in both")
    if RANK is not None:
        torch.distributed.init_process_group(
            "gloo",
            store=torch.distributed.FileStore(str(PLACE / "store"), RANKS),
            rank=int(RANK),
            world_size=RANKS,
            timeout=timedelta(seconds=PATIENCE),
        )


def pytest_unconfigure():
    if RANK is not None:
        torch.distributed.destroy_process_group()


def pytest_runtest_logreport(report):
    if RANK is not None:
        line = {"test": name_of(report.nodeid), "outcome": report.outcome, "text": str(report.longrepr)}
        with (PLACE / f"{RANK}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """In place of the body of a marked test: how it went in the two processes, which are started once."""
    if RANK is not None or pyfuncitem.get_closest_marker("two_ranks") is None:
        return None
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    # Starting costs more than the tests, so all files share it; but a worker of xdist does not know which are its own.
    files = pyfuncitem.path if hasattr(pyfuncitem.config, "workerinput") else None
    if files not in _finished:
        _finished[files] = TwoProcesses(pyfuncitem.session, files)
    _finished[files].repeat(pyfuncitem)
    return True


def name_of(nodeid):
    """Of a test, whatever folder the process has been started in."""
    file, name = nodeid.split("::", 1)
    return f"{Path(file).name}::{name}"


class TwoProcesses:
    """Run the marked tests that were collected, of a file or all, in two processes; know how each of them ended."""

    def __init__(self, session, file):
        tests = [t for t in session.items if t.get_closest_marker("two_ranks") and file in (None, t.path)]
        config = session.config
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider"]
        command += ["--rootdir", str(config.rootpath), *(["-c", str(config.inipath)] if config.inipath else [])]
        command += [str(test.path.parent / name_of(test.nodeid)) for test in tests]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment["OMP_NUM_THREADS"] = "1"
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            environment["ROBUST_OPTIM_TEST_PLACE"] = folder
            processes = []
            for rank in range(RANKS):
                with (place / f"{rank}.txt").open("w") as file:
                    own = environment | {"ROBUST_OPTIM_TEST_RANK": str(rank)}
                    processes.append(subprocess.Popen(command, env=own, stdout=file, stderr=subprocess.STDOUT))
            try:
                for process in processes:
                    process.wait(timeout=5 * PATIENCE)
            except subprocess.TimeoutExpired:
                pass  # the tests that did not end are told by their missing lines
            finally:
                for process in processes:
                    process.kill()
                    process.wait()
            self.outputs = [(place / f"{rank}.txt").read_text() for rank in range(RANKS)]
            records = [place / f"{rank}.jsonl" for rank in range(RANKS)]
            self.lines = [
                [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
                for record in records
            ]

    def repeat(self, test):
        """Fail, skip or pass as the test did there: it has to pass in both."""
        name = name_of(test.nodeid)
        ended = [[line for line in lines if line["test"] == name] for lines in self.lines]
        failures = [
            f"on rank {rank}:\n{line['text']}"
            for rank, lines in enumerate(ended)
            for line in lines
            if line["outcome"] == "failed"
        ]
        if failures:
            pytest.fail("\n".join(failures), pytrace=False)
        failed = [line["test"] for lines in self.lines for line in lines if line["outcome"] == "failed"]
        for rank, lines in enumerate(ended):
            if not lines or (len(lines) < 3 and lines[0]["outcome"] == "passed"):  # setup, body, teardown
                if failed:
                    pytest.fail(f"not run, because {failed[0]} failed before it", pytrace=False)
                end = self.outputs[rank][-5000:]
                pytest.fail(f"rank {rank} did not come to its end. The output there:\n{end}", pytrace=False)
            for line in lines:
                if line["outcome"] == "skipped":
                    pytest.skip(line["text"])


METHODS = {  # built as METHODS[name](base, model=model), with settings that leave no part of a method without effect
    "SAM": partial(SAM, rho=0.05),
    "ASAM": partial(SAM, rho=0.05, adaptive=True),
    "F-SAM": partial(SAM, rho=0.05, friendly=1.0),
    "GSAM": partial(GSAM, rho=0.05, rho_min=0.01),
    "LookSAM": partial(LookSAM, rho=0.05, k=3),
    "ESAM": partial(ESAM, rho=0.05),
    "ESAM coordinates": partial(ESAM, rho=0.05, part="coordinates"),
    "AWP": partial(AWP, gamma=0.05),
    "AWP step_first": partial(AWP, gamma=0.05, order="step_first"),
}


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request):
    return request.param


@pytest.fixture(params=[name for name in METHODS if "ESAM" not in name])
def by_closure(request):
    """The methods whose step takes a closure."""
    return METHODS[request.param]


@pytest.fixture(
    params=[
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.0),
    ],
    ids=["SGD", "AdamW"],
)
def base(request):
    return request.param


@pytest.fixture(scope="session")
def bowl():
    return Bowl


@pytest.fixture(scope="session")
def training():
    return Training


@pytest.fixture(scope="session")
def follow():
    return follow_formula


@pytest.fixture(scope="session")
def same():
    """Whether two lists of tensors are equal bit for bit."""
    return lambda a, b: all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Bowl:
    """The loss w'Aw / 2, whose gradient is Aw."""

    A = torch.tensor([[3.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.7]], dtype=torch.float64)
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def __init__(self):
        self.weights = nn.Parameter(self.start.clone())

    def closure(self, optimizer):
        def closure():
            optimizer.zero_grad()
            loss = self.weights @ self.A @ self.weights / 2
            loss.backward()
            return loss

        return closure

    def moved(self):
        return not torch.equal(self.weights.detach(), self.start)


class Training:
    """A small network, batches for it, and its gradients at any weights, which no optimizer has touched."""

    def __init__(self, *, dtype=torch.float64, batch_norm=False, dropout=0.0):
        middle = ([nn.BatchNorm1d(7)] if batch_norm else []) + ([nn.Dropout(dropout)] if dropout else [])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = nn.Sequential(nn.Linear(5, 7), *middle, nn.Tanh(), nn.Linear(7, 3)).to(dtype)
        self.dtype = dtype

    def batches(self, count):
        random = torch.Generator().manual_seed(1)
        return [
            (torch.randn(6, 5, generator=random, dtype=self.dtype), torch.randint(3, (6,), generator=random))
            for _ in range(count)
        ]

    def groups(self, **first):
        """Two parameter groups, of which the first has settings of its own."""
        return [{"params": list(self.model[0].parameters()), **first}, {"params": list(self.model[-1].parameters())}]

    def parameters(self):
        return list(self.model.parameters())

    def weights(self):
        return [parameter.detach().clone() for parameter in self.model.parameters()]

    def gradients(self, weights, inputs, labels):
        weights = [w.clone().requires_grad_() for w in weights]
        names = [name for name, _ in self.model.named_parameters()]
        logits = torch.func.functional_call(self.model, dict(zip(names, weights, strict=True)), (inputs,))
        return list(torch.autograd.grad(cross_entropy(logits, labels), weights))

    def closure(self, optimizer, inputs, labels, scale=1.0):
        def closure():
            optimizer.zero_grad()
            loss = cross_entropy(self.model(inputs), labels, reduction="none").mean()  # rounded as that of `losses`
            (loss * scale if optimizer.scaler is None else optimizer.scaler.scale(loss)).backward()
            return loss

        return closure

    def losses(self, inputs, labels, scale=1.0):
        """What ESAM takes instead of a closure."""

        def losses(subset=None):
            x, y = (inputs, labels) if subset is None else (inputs[subset], labels[subset])
            return scale * cross_entropy(self.model(x), y, reduction="none")

        return losses

    def step(self, optimizer, inputs, labels, scale=1.0):
        """One update, in the way of the method; with a `scale` of the loss in the gradients."""
        if isinstance(optimizer, ESAM):
            return optimizer.step(self.losses(inputs, labels, scale))
        return optimizer.step(self.closure(optimizer, inputs, labels, scale))

    def run(self, optimizer, batches):
        for batch in batches:
            self.step(optimizer, *batch)


def follow_formula(wrap, formula, base, *, decay=0.01):
    """Train with `wrap(base(groups), model)`, and beside it let a plain base step with what a formula gives.

    Args:
        wrap: builds the optimizer that is tested, with a radius of 0.05; the first of two groups has one of 0.2.
        formula: `formula(at, w, radii, step)` gives the gradients for the base; `at(w)` are those of the loss of the
            batch at any weights.
        base: builds the base optimizer.
        decay: of the weights of the first group; that of the second is 0.
    """
    ours, theirs = Training(), Training()
    optimizer = wrap(base(ours.groups(rho=0.2, gamma=0.2, weight_decay=decay)), ours.model)
    plain = base(theirs.groups(weight_decay=decay))
    for step, batch in enumerate(ours.batches(20)):
        g = formula(lambda w, batch=batch: theirs.gradients(w, *batch), theirs.weights(), [0.2, 0.2, 0.05, 0.05], step)
        for parameter, gradient in zip(theirs.model.parameters(), g, strict=True):
            parameter.grad = gradient
        plain.step()
        ours.step(optimizer, *batch)
        for mine, expected in zip(ours.weights(), theirs.weights(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)
