"""ImageNet-P and CIFAR-P that are made from the clean images, from synthetic folders."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from robust_bench import benchmarks, evaluate
from robust_bench.benchmarks import Options, cifar_p, generated_sequences, imagenet_p
from robust_bench.benchmarks.flip_scores import mean_flip_probability
from robust_bench.conditions import Flips, Perturbed
from robust_bench.corruptions.sequences import sequence
from robust_bench.datasets import Sequences
from robust_bench.datasets.imagenet_classes import imagenet_wnids
from robust_bench.metrics import mean_flip_rate
from robust_bench.part import Benchmark
from robust_bench.preprocess import Preprocess
from torch import nn

ENTRIES = {entry.name: entry for entry in generated_sequences.ENTRIES}
WNIDS = imagenet_wnids()


class Shades(nn.Module):
    """As many logits as classes: a fixed random projection of the image's coarse colours."""

    def __init__(self, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, classes, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images - 0.5, 4).flatten(1) @ self.weight


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Two pictures of different shapes as the images of all classes."""
    data = tmp_path_factory.mktemp("data")
    for number, size in enumerate(((300, 280), (270, 400))):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(data / f"{number}.png")
    root = data / "imagenet-val"
    root.mkdir()
    for place, wnid in enumerate(WNIDS):
        (root / wnid).mkdir()
        (root / wnid / "ILSVRC2012_val_00000001.JPEG").symlink_to(data / f"{place % 2}.png")
    return data


@pytest.fixture
def cifar(tmp_path, monkeypatch, pictures):
    """Six test images of CIFAR-10, whose MD5 torchvision is told."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    content = {"data": pictures(count=6).flatten(1).numpy(), "labels": [0, 1, 2, 3, 4, 9]}
    for name in ("train_list", "test_list"):
        listed = []
        for file, _ in getattr(torchvision.datasets.CIFAR10, name):
            (folder / file).write_bytes(pickle.dumps(content))
            listed.append([file, hashlib.md5((folder / file).read_bytes()).hexdigest()])
        monkeypatch.setattr(torchvision.datasets.CIFAR10, name, listed)
    meta = torchvision.datasets.CIFAR10.meta
    (folder / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: ["c"] * 10}))
    digest = hashlib.md5((folder / meta["filename"]).read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", meta | {"md5": digest})
    return tmp_path


def build(name, data, **options):
    return ENTRIES[name].build(Options(data=data, **options))


def test_they_are_in_the_list():
    assert {
        "imagenet-p:generated",
        "imagenet-p-2:generated",
        "imagenet-p-3:generated",
        "cifar-10-p:generated",
        "cifar-100-p:generated",
    } <= set(benchmarks.names())
    means = {name: entry.scores.keywords["mean"] for name, entry in ENTRIES.items()}
    assert [name for name, mean in means.items() if mean is mean_flip_rate] == ["imagenet-p:generated"]
    assert means["cifar-10-p:generated"] is mean_flip_probability


def test_every_perturbation_of_imagenet_is_a_part_of_sequences(imagenet):
    parts = build("imagenet-p:generated", imagenet).parts
    names = (*imagenet_p.PERTURBATIONS, *imagenet_p.EXTRA_PERTURBATIONS)
    assert [part.name for part in parts] == [f"imagenet-p:generated/{name}" for name in names]
    tilt = parts[names.index("tilt")]
    assert (tilt.label, tilt.num_classes, len(tilt.data)) == ("imagenet-p:generated", 1000, 1000)
    assert tilt.data.filename(7) == f"{WNIDS[7]}/ILSVRC2012_val_00000001.JPEG"
    frames, label = tilt.data[999]
    assert (frames.shape, label) == ((31, 3, 224, 224), 999)
    whole = Image.open(imagenet / "1.png").resize((256, 379), Image.Resampling.BILINEAR)
    levels = torch.from_numpy(np.array(whole)).permute(2, 0, 1)[None].contiguous()
    assert torch.equal(frames, sequence(levels, "tilt", ids=torch.tensor([999]))[0] / 255)


def test_settings_say_how_the_frames_were_made(imagenet):
    part = build("imagenet-p-2:generated", imagenet).parts[0]
    known = part.settings
    assert (known["variant"], known["whole_images"]) == ("generated", "Resize(256, bilinear)")
    assert known["images_expected"] == 50_000
    (condition,) = part.conditions
    assert isinstance(condition, Flips)
    assert condition.settings == {
        "kind": "sequence",
        "perturbation": "gaussian_noise",
        "noise": True,
        "difficulty": 2,
        "source": "generated",
        "preset": "imagenet",
        "seed": 0,
        "published": "H.264 videos (crf 20, noises tuned for grain), so that equal pixels are impossible",
    }
    assert part.data.difficulty == 2


def test_a_model_of_another_size_sees_the_same_frames_resized(imagenet):
    part = build("imagenet-p:generated", imagenet, preprocess=Preprocess(size=64)).parts[0]
    assert part.data[0][0].shape == (31, 3, 64, 64)
    assert part.settings["preprocessing"]["steps"] == "Resize(64 from 224, bilinear, antialiased)"


def test_scores_are_flips_and_their_mean(imagenet, monkeypatch):
    """The ten parts that the mean is over, but two images of each."""
    whole = build("imagenet-p:generated", imagenet)
    monkeypatch.setattr(Sequences, "__len__", lambda self: 2)
    ten = Benchmark(name=whole.name, parts=whole.parts[:10], scores=whole.scores)
    result = evaluate(Shades(1000), ten, batch_size=64)
    rows = [row for row in result.rows if row.settings["kind"] == "score"]
    assert {row.benchmark for row in rows} == {"imagenet-p:generated"}
    flips = {row.settings["perturbation"]: row.value for row in rows if row.metric == "flip_probability"}
    assert len(flips) == 10
    mean = next(row for row in rows if row.metric == "mean_flip_rate")
    assert mean.value == pytest.approx(mean_flip_rate({name: flips[name] for name in imagenet_p.PERTURBATIONS}))
    assert mean.value > 0
    for row in rows:
        assert (row.settings["source"], row.settings["preset"], row.settings["seed"]) == ("generated", "imagenet", 0)


def test_the_sequences_of_cifar_are_made_batch_by_batch(cifar):
    benchmark = build("cifar-10-p:generated", cifar)
    names = (*cifar_p.PERTURBATIONS, *cifar_p.EXTRA_PERTURBATIONS)
    assert [part.name for part in benchmark.parts] == [f"cifar-10-p:generated/{name}" for name in names]
    assert {part.conditions[0].perturbation for part in benchmark.parts} == set(names)
    assert all(isinstance(part.conditions[0], Perturbed) for part in benchmark.parts)
    assert benchmark.parts[0].data[0][0].shape == (3, 32, 32)
    assert benchmark.parts[0].settings["dataset"] == "CIFAR-10-P, made from CIFAR-10"
    assert benchmark.parts[0].settings["variant"] == "generated"
    result = evaluate(Shades(10), benchmark)
    rows = [row for row in result.rows if row.settings["kind"] == "score"]
    flips = {row.settings["perturbation"]: row.value for row in rows if row.metric == "flip_probability"}
    mean = next(row for row in rows if row.metric == "mean_flip_probability")
    assert mean.value == pytest.approx(np.mean([flips[name] for name in cifar_p.PERTURBATIONS]))
    assert mean.value > 0


def test_for_another_size_cifars_frames_are_made_at_32_pixels_and_resized(cifar):
    name = "cifar-10-p:generated"
    part = build(name, cifar, size=48).parts[7]
    assert part.data[0][0].shape == (31, 3, 48, 48)
    assert isinstance(part.conditions[0], Flips)
    assert part.settings["preprocessing"]["steps"] == "Resize(48 from 32, bilinear, antialiased)"
    usual = build(name, cifar).parts[7]
    same = build(name, cifar, size=32).parts[7]
    assert part.conditions[0].settings == usual.conditions[0].settings == same.conditions[0].settings

    def flips(chosen):
        kept = []
        evaluate(Shades(10), Benchmark(name=name, parts=(chosen,), scores=lambda found: kept.append(found) or ()))
        return kept[0][chosen.name][0].more["top5_distance"]

    # The model averages over 8 pixels, and a resize to 48 and back to 4 leaves the averages about as they are.
    assert np.abs(flips(part) - flips(usual)).max() < 1.5
    assert flips(usual).mean() > 0


def test_what_is_not_there_is_an_error_with_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'imagenet-p:generated' .*Expected DIR/imagenet-val"):
        build("imagenet-p:generated", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'cifar-10-p:generated' .*cifar-10-python\.tar\.gz"):
        build("cifar-10-p:generated", tmp_path)
    with pytest.raises(ValueError, match="give data"):
        build("imagenet-p:generated", None)
