"""The engine: counts that are known, purity, invariance, and errors that say how to mend."""

import contextlib
import copy
import importlib.metadata
import random
import warnings

import numpy
import pytest
import torch
from robust_attacks import PGD, Linf
from robust_bench import EvaluationWarning, Result, benchmarks, evaluate
from robust_bench.conditions import Attacked, Clean, Corrupted
from robust_bench.corruptions import available
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

CONDITIONS = (
    Clean(),
    Attacked(attack=PGD(threat=Linf(eps=0.12), steps=5, restarts=2)),
    Corrupted(corruption="gaussian_noise", severity=5, preset="cifar"),
    Corrupted(corruption="contrast", severity=5, preset="cifar"),
)


class Listed(Dataset):
    """A data set that is read image by image."""

    def __init__(self, tensors: TensorDataset) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, index: int):
        image, label = self.tensors[index]
        return image, int(label)


class Stream(IterableDataset):
    """A data set without a length."""

    def __init__(self, tensors: TensorDataset) -> None:
        self.tensors = tensors

    def __iter__(self):
        return iter([self.tensors[index] for index in range(len(self.tensors))])


def test_clean_and_robust_accuracy_have_closed_forms(model, grey):
    """The worst change moves the mean by eps towards one half; two of the 21 labels are wrong to begin with."""
    result = evaluate(model, grey, conditions=CONDITIONS[:2])
    clean, robust = result.rows
    assert (clean.correct, clean.count) == (19, 21)
    values = torch.arange(21) / 20
    safe = ((values <= 0.5 - 0.12) | (values > 0.5 + 0.12)).sum() - 2
    assert (robust.correct, robust.count) == (int(safe), 21)
    assert (robust.value, robust.settings["eps"]) == (int(safe) / 21, 0.12)
    assert robust.low < robust.value < robust.high


def test_wrong_images_stay_wrong_and_are_not_attacked(model, grey):
    seen = []

    def helpful(_model, images, labels, *, random=None):
        seen.append((len(images), random.ids.tolist()))
        return torch.where(labels[:, None, None, None] == 1, torch.ones_like(images), torch.zeros_like(images))

    result = evaluate(model, grey, conditions=(Attacked(attack=helpful),), batch_size=100)
    assert result.rows[0].correct == 19
    assert seen == [(19, [index for index in range(21) if index not in (3, 18)])]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("make", [lambda data: data, Listed, lambda data: DataLoader(data, 5), Stream])
def test_the_result_does_not_depend_on_the_batches(model, grey, make, batch_size):
    expected = evaluate(model, grey, conditions=CONDITIONS, seed=3)
    found = evaluate(model, make(grey), conditions=CONDITIONS, seed=3, batch_size=batch_size)
    assert [row.correct for row in found.rows] == [row.correct for row in expected.rows]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_image_gets_the_same_change_in_any_batch(model, grey, batch_size):
    """The images that the model sees are equal bit for bit: its arithmetic here is done image by image."""

    def seen_by(size):
        shown = []

        def watching(images):
            shown.append(images.clone())
            return model.eval()(images)

        evaluate(watching, grey, conditions=CONDITIONS[2:3], seed=1, batch_size=size)
        return torch.cat([shown[0], *shown[3:]])  # the second and the third belong to the first look

    assert torch.equal(seen_by(batch_size), seen_by(21))


def test_the_seed_matters(model, grey):
    def noisy(seed):
        shown = []
        evaluate(
            lambda images: (shown.append(images), torch.zeros(len(images), 2))[1],
            grey,
            conditions=CONDITIONS[2:3],
            seed=seed,
        )
        return shown[0]

    assert torch.equal(noisy(1), noisy(1))
    assert not torch.equal(noisy(1), noisy(2))


@pytest.mark.parametrize("fail", [None, KeyboardInterrupt, RuntimeError])
def test_nothing_that_was_given_changes(grey, fail):
    class Block(nn.Sequential):
        def forward(self, images):
            if fail is not None:
                raise fail("stop")
            return super().forward(images)

    model = Block(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
    model.train()
    model[1].eval()  # a mixed mode, as for frozen statistics
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    before = copy.deepcopy(model)
    state, images = torch.get_rng_state(), grey.tensors[0].clone()
    if fail is None:
        evaluate(model, DataLoader(grey, 4), conditions=CONDITIONS)
    else:
        with pytest.raises(fail, match="stop"):
            evaluate(model, DataLoader(grey, 4), conditions=CONDITIONS)
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]
    for ours, theirs in zip(model.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert all(bool((parameter.grad == 2).all()) and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(images, grey.tensors[0])


def test_the_model_is_evaluated_in_eval_mode_without_gradients(model, grey):
    model.train()
    modes = []
    model.register_forward_hook(lambda module, _, out: modes.append((module.training, out.requires_grad)))
    evaluate(model, grey)
    assert set(modes) == {(False, False)}
    assert model.training


def test_half_precision_outside_does_not_reach_the_model(grey):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    kinds = []
    model.register_forward_hook(lambda _module, _inputs, out: kinds.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        evaluate(model, grey)
    assert set(kinds) == {torch.float32}


def test_a_result_carries_what_is_needed_to_repeat_it(model, grey):
    result = evaluate(model, grey, name="mine", seed=5, batch_size=4, settings={"model": {"spec": "x"}})
    assert (result.model, result.benchmark, result.seed) == ("mine", "TensorDataset", 5)
    assert {"python", "torch", "timm", "robust-attacks", "robust-models", "robust-bench"} <= result.versions.keys()
    assert result.settings["batch_size"] == 4
    assert result.settings["device"] == "cpu"
    assert result.settings["model"] == {"spec": "x"}
    assert result.settings["data"]["TensorDataset"]["images"] == 21
    assert result.created.endswith("Z")
    for name in ("robust-bench", "scikit-learn", "pillow"):
        assert result.versions[name] == importlib.metadata.version(name)
    assert Result.from_json(result.to_json()) == result
    assert evaluate(model, grey).model == "Threshold"


def test_a_benchmark_brings_its_conditions():
    def guess(images):
        return images.mean(dim=(2, 3)).repeat(1, 10)

    result = evaluate(guess, "digits")
    assert [row.condition for row in result.rows] == ["clean"]
    assert result.benchmark == result.rows[0].benchmark == "digits"
    result = evaluate(guess, benchmarks.load("digits-c"), batch_size=450)
    assert len(result.rows) == 1 + 5 * len(available(8, 8))
    assert result.benchmark == "digits-c"
    assert {row.benchmark for row in result.rows} == {"digits"}
    assert result.settings["data"]["digits"]["dataset"].startswith("digits")


def test_an_attack_of_the_users_own_may_use_gradients_plainly(model, grey):
    def sign(model, images, labels, *, random=None):
        images = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(images), labels, reduction="sum")
        return (images + 0.12 * torch.autograd.grad(loss, images)[0].sign()).clamp(0, 1)

    ours, plain = evaluate(model, grey, conditions=(CONDITIONS[1], Attacked(attack=sign))).rows
    assert plain.correct == ours.correct


# ---- errors that say how to mend ----


def batch(images=None, labels=None):
    images = torch.rand(6, 1, 8, 8) if images is None else images
    return TensorDataset(images, torch.zeros(len(images), dtype=torch.int64) if labels is None else labels)


@pytest.mark.parametrize(
    ("data", "kind", "word"),
    [
        (batch(torch.randn(6, 1, 8, 8) * 2), ValueError, r"must lie in \[0, 1\].*robust_models.Normalize"),
        (batch(torch.full((6, 1, 8, 8), float("nan"))), ValueError, r"must lie in \[0, 1\]"),
        (batch(torch.randint(0, 256, (6, 1, 8, 8))), TypeError, "divide 8-bit images by 255"),
        (batch(torch.rand(6, 8, 8)), ValueError, r"\(N, C, H, W\)"),
        (batch(labels=torch.tensor([0, 1, 5, 0, 0, 0])), ValueError, "labels lie in 0..5.*num_classes=6"),
        (batch(labels=torch.tensor([0, 1, -1, 0, 0, 0])), ValueError, "labels lie in -1..1"),
        (batch(labels=torch.rand(6)), TypeError, "integer class indices"),
        (batch(labels=torch.zeros(6, 2, dtype=torch.int64)), ValueError, "argmax"),
        (TensorDataset(torch.rand(6, 1, 8, 8)), TypeError, r"pairs \(images, labels\)"),
        (batch(torch.rand(0, 1, 8, 8)), ValueError, "holds no images"),
        (torch.rand(6, 1, 8, 8), TypeError, "TensorDataset"),
        ("imagenet", ValueError, "unknown benchmark"),
    ],
)
def test_bad_data_is_an_error(model, data, kind, word):
    with pytest.raises(kind, match=word):
        evaluate(model, data)


@pytest.mark.parametrize(
    ("broken", "kind", "word"),
    [
        (lambda images: (torch.zeros(len(images), 2), None), TypeError, "got tuple.*wrap it"),
        (lambda images: torch.zeros(len(images), 2).argmax(1), TypeError, "not the classes"),
        (lambda images: torch.zeros(len(images) + 1, 2), ValueError, "one row per image"),
        (lambda images: torch.zeros(len(images), 2, 4, 4), ValueError, "feature maps"),
        (lambda images: torch.full((len(images), 2), float("nan")), ValueError, "NaN"),
        (lambda images: torch.zeros(len(images), 1), ValueError, "returns 1 logits"),
    ],
)
def test_a_model_that_returns_something_else_is_an_error(grey, broken, kind, word):
    with pytest.raises(kind, match=word):
        evaluate(broken, grey)


def test_a_fault_in_a_later_batch_is_found_too(model):
    images = torch.rand(9, 1, 8, 8)
    images[8] = 1.5
    with pytest.raises(ValueError, match=r"1\.5"):
        evaluate(model, batch(images), batch_size=4)


def test_softmax_outputs_are_warned_of(model, grey):
    model.eval()
    with pytest.warns(EvaluationWarning, match="without the softmax"):
        evaluate(lambda images: model(images).softmax(1), grey)


def test_another_number_of_classes_than_the_benchmark_is_warned_of():
    with pytest.warns(EvaluationWarning, match="returns 1000 logits and the benchmark has 10"):
        evaluate(lambda images: images.mean(dim=(2, 3)).repeat(1, 1000), "digits")


@pytest.mark.parametrize(
    ("loader", "word"),
    [
        (lambda data: DataLoader(data, 4, shuffle=True), "shuffle=False"),
        (lambda data: DataLoader(data, 4, sampler=RandomSampler(data)), "RandomSampler"),
        (lambda data: DataLoader(data, batch_sampler=[[0, 1], [2]]), "list"),
        (lambda data: DataLoader(data, 4, drop_last=True), "drop_last"),
        (lambda data: DataLoader(Stream(data), 4, drop_last=True), "drop_last"),
        (lambda data: DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 4, True)), "drop_last"),
        (lambda data: DataLoader(Stream(data), 4, num_workers=2), "2 processes"),
    ],
)
def test_loaders_out_of_order_or_incomplete_are_errors(model, grey, loader, word):
    with pytest.raises(ValueError, match=word):
        evaluate(model, loader(grey))


def test_a_stream_is_counted_once_with_workers(model, grey):
    assert evaluate(model, Stream(grey), workers=2).rows[0].count == 21


class Moody(nn.Module):
    """Draws from every generator and changes its buffers, in place and by assignment; the data draw too."""

    def __init__(self, fail: bool) -> None:
        super().__init__()
        self.fail = fail
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2))

    def forward(self, images):
        draw()
        self.calls += 1
        self.last = torch.ones(3)
        if self.fail:
            raise NameError("stop")
        return torch.zeros(len(images), 2)


def draw():
    torch.rand(3)
    random.random()
    numpy.random.rand()  # noqa: NPY002  the global state is what is tested


class Augmented(Listed):
    def __getitem__(self, index):
        draw()
        return super().__getitem__(index)


@pytest.mark.parametrize("fail", [False, True])
def test_draws_and_buffers_of_the_model_leave_no_trace(grey, fail):
    moody = Moody(fail)
    last = moody.last
    states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()  # noqa: NPY002
    with pytest.raises(NameError, match="stop") if fail else contextlib.nullcontext():
        evaluate(moody, Augmented(grey))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert numpy.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert moody.calls == 0
    assert moody.last is last
    assert last.tolist() == [0, 0]


def test_a_model_for_other_images_is_an_error_that_names_their_shape(grey):
    with pytest.raises(RuntimeError, match=r"cannot take images of the shape \(21, 1, 8, 8\): .*channels"):
        evaluate(nn.Conv2d(3, 2, 8), grey)


def test_an_explicit_sequential_sampler_is_fine(model, grey):
    assert evaluate(model, DataLoader(grey, 4, sampler=SequentialSampler(grey))).rows[0].correct == 19


@pytest.mark.parametrize(
    ("settings", "word"), [({"conditions": ()}, "at least one condition"), ({"batch_size": 0}, "batch_size")]
)
def test_impossible_settings_are_errors(model, grey, settings, word):
    with pytest.raises(ValueError, match=word):
        evaluate(model, grey, **settings)


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta"])
def test_an_unknown_device_is_an_error(model, grey, device):
    with pytest.raises(ValueError, match=f"device '{device}'"):
        evaluate(model, grey, device=device)


def test_a_missing_gpu_is_an_error(model, grey, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cpu'"):
        evaluate(model, grey, device="cuda")


def test_no_warning_comes_from_a_sound_evaluation(model, grey):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(model, DataLoader(grey, 4), conditions=CONDITIONS)


@pytest.mark.gpu
def test_the_gpu_gives_the_result_of_the_cpu_and_gives_the_model_back(model, grey):
    model.train()
    expected = evaluate(model, grey, conditions=CONDITIONS)
    found = evaluate(model, grey, conditions=CONDITIONS, device="cuda")
    assert [row.correct for row in found.rows] == [row.correct for row in expected.rows]
    assert next(model.parameters()).device.type == "cpu"
    assert model.training
    assert found.settings["device"].startswith("cuda")
