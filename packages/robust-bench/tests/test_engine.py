"""The engine: damaged images, names, several models, answers and further columns."""

import functools
import gzip
import json
import warnings

import pytest
import torch
from PIL import Image
from robust_attacks import FGSM, PGD, Linf, WorstCase
from robust_bench import EvaluationWarning, Interrupted, evaluate
from robust_bench.answer import Subset
from robust_bench.benchmarks import Benchmark, Part
from robust_bench.conditions import Attacked, Clean, Suite
from robust_bench.datasets import Folder
from robust_bench.engine import Entrant, Settings, evaluate_part
from robust_bench.preprocess import AsStored
from robust_bench.records import Records, read_damaged, read_records
from robust_bench.result import Row
from robust_bench.shards import RECORDS
from robust_bench.world import World
from torch import nn
from torch.utils.data import Dataset, TensorDataset


@pytest.fixture
def root(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog", "owl"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8, generator=generator)
            Image.fromarray(pixels.numpy()).save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()


def folder(root):
    return Folder(root, transform=AsStored(stored=16))


def entrant(model, name="m", folder=None):
    return Entrant(model=model, name=name, folder=lambda part: folder, settings={})


def settings(**changes):
    usual = {
        "device": torch.device("cpu"), "batch_size": 5, "seed": 0, "workers": 0, "progress": False, "shard_size": 4,
        "world": World(), "skip": False, "keep": False,
    }  # fmt: skip
    return Settings(**usual | changes)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_images_are_skipped_when_asked_and_counted(root, model, tmp_path, workers):
    whole = evaluate(model, folder(root), out=tmp_path / "whole", shard_size=4)
    expected = {seen.name: seen for seen in read_records(tmp_path / "whole" / RECORDS)}
    for name in ("cat/1.png", "owl/3.png"):
        (root / name).write_bytes((root / name).read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cat/1\.png"):
        evaluate(model, folder(root), out=tmp_path / "stopped", shard_size=4)
    found = evaluate(
        model, folder(root), out=tmp_path / "skipped", shard_size=4, on_error="skip", batch_size=3, workers=workers
    )
    about = found.settings["data"]["Folder"]
    assert (about["images"], about["skipped"], found.rows[0].count) == (10, 2, 10)
    assert ["cat/1.png" in about["damaged"][0], "owl/3.png" in about["damaged"][1]] == [True, True]
    kept = list(read_records(tmp_path / "skipped" / RECORDS))
    assert kept == [expected[seen.name] for seen in kept]
    assert {seen.name for seen in kept} == set(expected) - {"cat/1.png", "owl/3.png"}
    assert found.rows[0].correct == whole.rows[0].correct - sum(
        expected[n].right[0] for n in ("cat/1.png", "owl/3.png")
    )
    assert len(read_damaged(tmp_path / "skipped" / RECORDS)) == 2


def test_a_batch_and_a_data_set_of_damaged_images(root, model, tmp_path):
    for file in (*root.glob("cat/*.png"), *root.glob("dog/0.png")):
        file.write_bytes(b"nothing")
    found = evaluate(model, folder(root), out=tmp_path / "some", shard_size=4, on_error="skip", batch_size=2)
    assert (found.rows[0].count, found.settings["data"]["Folder"]["skipped"]) == (7, 5)
    for file in root.glob("*/*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no image that can be read"):
        evaluate(model, folder(root), out=tmp_path / "none", shard_size=4, on_error="skip")


def test_skipping_needs_records(root, model):
    with pytest.raises(ValueError, match="needs a folder"):
        evaluate(model, folder(root), on_error="skip")
    with pytest.raises(ValueError, match="'stop' or 'skip'"):
        evaluate(model, folder(root), on_error="ignore")


class Counting(Dataset):
    """Counts how often an image is read."""

    fingerprint = "counting"

    def __init__(self, data):
        self.data, self.read = data, []

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        self.read.append(index)
        return self.data[index]


@pytest.fixture
def grey():
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.rand(21, 3, 16, 16, generator=generator), torch.arange(21) % 3)


def test_several_models_read_every_image_once_and_get_the_results_of_their_own(grey, model, tmp_path):
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    counting = Counting(grey)
    part = Part(name="grey", data=counting, num_classes=3)
    candidates = [entrant(each, name, tmp_path / name) for each, name in ((model, "a"), (other, "b"))]
    together = evaluate_part(part, candidates, settings())
    assert counting.read == list(range(21))
    for candidate, outcome in zip(candidates, together, strict=True):
        alone = evaluate(candidate.model, grey, out=tmp_path / "alone" / candidate.name, batch_size=8)
        assert [row.correct for row in outcome.rows] == [row.correct for row in alone.rows]
        mine = list(read_records(tmp_path / candidate.name / RECORDS))
        assert mine == list(read_records(tmp_path / "alone" / candidate.name / RECORDS))


def test_what_only_one_of_several_models_lacks_is_computed_for_it_alone(grey, model, tmp_path):
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    counting = Counting(grey)
    part = Part(name="grey", data=counting, num_classes=3)
    candidates = [entrant(each, name, tmp_path / name) for each, name in ((model, "a"), (other, "b"))]
    first = evaluate_part(part, candidates, settings())
    (tmp_path / "b" / "shards" / "000002.jsonl.gz").unlink()
    counting.read.clear()
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    again = evaluate_part(part, candidates, settings())
    assert counting.read == [8, 9, 10, 11]
    assert not seen
    assert [each.rows[0].correct for each in again] == [each.rows[0].correct for each in first]


def test_further_columns_are_kept_and_exact(grey, tmp_path):
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 12)).eval()
    images, labels = grey.tensors
    with torch.no_grad():
        logits = wide(images).double()
    part = Part(name="grey", data=grey, num_classes=12, also=("top5", "loss"))
    (kept,) = evaluate_part(part, [entrant(wide, "m", tmp_path)], settings(keep=True))
    (memory,) = evaluate_part(part, [entrant(wide, "m")], settings(keep=True))
    for outcome in (kept, memory):
        (answers,) = outcome.answers
        ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
        assert answers.more["top5"].tolist() == (ranks < 5).int().tolist()
        expected = logits.logsumexp(dim=1) - logits.gather(1, labels[:, None])[:, 0]
        assert answers.more["loss"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert kept.answers[0].more["loss"].tolist() == memory.answers[0].more["loss"].tolist()
    assert kept.answers[0].confidences.tolist() == memory.answers[0].confidences.tolist()


def test_an_answer_replaces_the_logits(grey):
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)).eval()
    answer = Subset(indices=(9, 2, 4), logits=10)
    part = Part(name="grey", data=grey, num_classes=3, answer=answer)
    (found,) = evaluate_part(part, [entrant(wide, "m")], settings(keep=True))
    with torch.no_grad():
        expected = wide(grey.tensors[0])[:, [9, 2, 4]].argmax(dim=1)
    assert found.answers[0].predictions.tolist() == expected.tolist()
    assert found.data["answer"] == "among 3 of 10 classes"


class Brightness:
    """A condition that measures by itself."""

    label, only_right, dimensions = "brightness", False, 5
    settings = {"kind": "measure"}  # noqa: RUF012  # never changed

    def measure(self, model, images, labels, random):
        scores = model(images[:, 0]).softmax(dim=1)
        confidences, predictions = scores.max(dim=1)
        return Records(
            predictions=predictions,
            confidences=confidences,
            right=predictions == labels,
            seconds=0.0,
            more={"brightness": images.mean(dim=(1, 2, 3, 4)), "id": random.ids},
        )


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_condition_may_measure_sequences_by_itself(model, tmp_path, batch_size):
    generator = torch.Generator().manual_seed(1)
    frames, labels = torch.rand(9, 4, 3, 16, 16, generator=generator), torch.arange(9) % 3
    part = Part(name="p", data=TensorDataset(frames, labels), conditions=(Brightness(),), num_classes=3)
    for folder_ in (None, tmp_path):
        candidate = entrant(model, "m", folder_)
        (found,) = evaluate_part(part, [candidate], settings(keep=True, batch_size=batch_size))
        (answers,) = found.answers
        assert answers.more["id"].tolist() == list(range(9))
        assert answers.more["brightness"].tolist() == pytest.approx(frames.mean(dim=(1, 2, 3, 4)).tolist(), abs=1e-6)
        assert found.rows[0].correct == int(answers.right.sum())


def test_scores_see_what_was_found_in_memory_and_in_folders(grey, model, tmp_path):
    def scores(found):
        (answers,) = found["second"]
        assert len(found["first"][0]) == 21
        yield Row(benchmark="two", condition="all", metric="share", value=float(answers.confidences.mean()), count=21)

    parts = tuple(Part(name=name, data=grey, conditions=(Clean(),), num_classes=3) for name in ("first", "second"))
    benchmark = Benchmark(name="two", parts=parts, scores=scores)
    memory, kept, again = (
        evaluate(model, benchmark),
        evaluate(model, benchmark, out=tmp_path, shard_size=8),
        evaluate(model, benchmark, out=tmp_path, shard_size=8),
    )
    assert memory.rows[2].value == kept.rows[2].value == again.rows[2].value
    assert [row.benchmark for row in kept.rows] == ["first", "second", "two"]
    assert {path.parent.name for path in tmp_path.glob("*/fingerprint.json")} == {"first", "second"}


def test_file_names_are_in_the_records(root, model, tmp_path):
    evaluate(model, folder(root), out=tmp_path / "out", shard_size=5)
    names = [seen.name for seen in read_records(tmp_path / "out" / RECORDS)]
    assert names == [f"{name}/{index}.png" for name in ("cat", "dog", "owl") for index in range(4)]
    with gzip.open(tmp_path / "out" / "shards" / "000000.jsonl.gz", "rt") as lines:
        assert json.loads(next(lines))["columns"] == [[]]


def test_a_thousand_shards_are_resumed_without_the_model(model, tmp_path):
    data = TensorDataset(torch.rand(1000, 3, 16, 16), torch.arange(1000) % 3)
    first = evaluate(model, data, out=tmp_path, shard_size=1, batch_size=500)
    model.register_forward_pre_hook(lambda *_: pytest.fail("nothing is left to do"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = evaluate(model, data, out=tmp_path, shard_size=1, batch_size=500)
    assert [row.correct for row in again.rows] == [row.correct for row in first.rows]


class Shift:
    """An attack that is an object, and says nothing of itself."""

    def __init__(self, by):
        self.by = by

    def __call__(self, model, images, labels, *, random=None):
        return (images + self.by).clamp(0, 1)


class Known(Shift):
    """The same, which says who it is."""

    @property
    def fingerprint(self):
        return f"shift by {self.by}"


def test_another_attack_is_refused_whatever_it_is(grey, model, tmp_path):
    with pytest.raises(TypeError, match="text `fingerprint`"):
        evaluate(model, grey, conditions=[Attacked(attack=Shift(0.0))], out=tmp_path / "a")
    evaluate(model, grey, conditions=[Attacked(attack=Known(0.0))], out=tmp_path / "b")
    with pytest.raises(ValueError, match=r"shift by 0\.0.*shift by 1\.0"):
        evaluate(model, grey, conditions=[Attacked(attack=Known(1.0))], out=tmp_path / "b")
    one, other = (functools.partial(shift, by=by) for by in (0.0, 1.0))
    evaluate(model, grey, conditions=[Attacked(attack=one)], out=tmp_path / "c")
    with pytest.raises(ValueError, match="holds another evaluation"):
        evaluate(model, grey, conditions=[Attacked(attack=other)], out=tmp_path / "c")
    first, second = (
        Suite(suite=WorstCase({"mine": attack(threat=Linf(eps=0.1))}, threat=Linf(eps=0.1))) for attack in (FGSM, PGD)
    )
    evaluate(model, grey, conditions=[first], out=tmp_path / "d")
    with pytest.raises(ValueError, match="holds another evaluation"):
        evaluate(model, grey, conditions=[second], out=tmp_path / "d")


def shift(model, images, labels, *, random=None, by=0.0):
    return (images + by).clamp(0, 1)


def test_warnings_outlive_the_run_that_gave_them(grey, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3), nn.Softmax(dim=1)).eval()
    with pytest.warns(EvaluationWarning, match="probabilities"):
        first = evaluate(model, grey, out=tmp_path)
    again = evaluate(model, grey, out=tmp_path)
    assert again.settings["warnings"] == first.settings["warnings"] != []


def test_ctrl_c_while_scores_are_taken_keeps_the_rows(grey, model, tmp_path):
    def scores(_):
        raise KeyboardInterrupt

    benchmark = Benchmark(name="b", parts=(Part(name="b", data=grey, num_classes=3),), scores=scores)
    with pytest.raises(Interrupted) as stop:
        evaluate(model, benchmark, out=tmp_path)
    assert [row.count for row in stop.value.result.rows] == [21]


def test_a_file_system_that_fails_for_a_while_is_no_damage(model, tmp_path):
    class Flaky(Counting):
        def __getitem__(self, index):
            if index == 7:
                raise OSError(5, "input/output error")
            return super().__getitem__(index)

    data = Flaky(TensorDataset(torch.rand(9, 3, 16, 16), torch.arange(9) % 3))
    with pytest.raises(OSError, match="input/output"):
        evaluate(model, data, out=tmp_path, on_error="skip")


def test_buffers_that_cannot_be_written_to_do_not_lose_the_result(grey):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    model.register_buffer("wide", torch.zeros(1).expand(4))
    assert evaluate(model, grey).rows[0].count == 21
