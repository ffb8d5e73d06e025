"""Several processes share a set of images, and one is killed: the results are those of one that was let alone."""

import signal
import subprocess
import sys
import textwrap

import pytest
import torch

pytestmark = pytest.mark.slow

SETUP = """
import os, signal, sys
import torch
from robust_attacks import APGD, FAB, Linf, Square, WorstCase, _evaluation

class Bumps(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn((3, 3, 4, 4), generator=generator, dtype=torch.float64))

    def forward(self, images):
        x = images.double() - 0.5
        x = x + 0.2 * torch.sin(9 * x)
        return torch.stack([(x * weight).sum(dim=(1, 2, 3)) for weight in self.weight], dim=1)

images = 0.2 + 0.6 * torch.rand(21, 3, 4, 4, generator=torch.Generator().manual_seed(1))
model = Bumps().eval()
labels, ids = model(images).argmax(dim=1), torch.arange(21)
threat = Linf(eps=0.02)
suite = WorstCase([APGD(threat=threat, steps=10), FAB(threat=threat, steps=5), Square(threat=threat, queries=30)])
"""
SHARD = """
part = slice(int(sys.argv[1]), None, 2)
report = suite.run(model, images[part], labels[part], ids[part], batch_size=4)
torch.save([report.adversarial, report.broken_by], sys.argv[2])
"""
KILLED = """
_evaluation._SECONDS_BETWEEN_SAVES = 0
passes = 0
def count(module, given):
    global passes
    passes += 1
    if passes == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
model.register_forward_pre_hook(count)
suite.run(model, images, labels, batch_size=4, checkpoint=sys.argv[2])
"""


def process(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", SETUP + textwrap.dedent(code), *map(str, arguments)])


@pytest.fixture(scope="module")
def alone():
    """The names of the set-up, and the report of a run in this process."""
    names = {}
    exec(SETUP, names)
    report = names["suite"].run(names["model"], names["images"], names["labels"])
    assert len(set(report.broken_by)) > 2  # several attacks broke something, and something stands
    return names, report


def test_two_processes_give_what_one_gives(alone, tmp_path):
    files = [tmp_path / f"{rank}.pt" for rank in range(2)]
    running = [process(SHARD, rank, file) for rank, file in enumerate(files)]
    assert [one.wait(timeout=120) for one in running] == [0, 0]
    _, report = alone
    for rank, file in enumerate(files):
        adversarial, broken_by = torch.load(file, weights_only=True)
        assert torch.equal(adversarial, report.adversarial[rank::2])
        assert broken_by == report.broken_by[rank::2]


def test_a_killed_run_goes_on_where_it_was(alone, tmp_path):
    names, expected = alone
    file = tmp_path / "run.pt"
    for passes in (60,):
        assert process(KILLED, passes, file).wait(timeout=120) == -signal.SIGKILL
    seen = []
    handle = names["model"].register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    report = names["suite"].run(names["model"], names["images"], names["labels"], batch_size=4, checkpoint=file)
    handle.remove()
    assert torch.equal(report.adversarial, expected.adversarial)
    assert report.broken_by == expected.broken_by
    assert sum(seen) < sum(expected.forwards.values())  # the rest of the run only
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
