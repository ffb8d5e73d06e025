"""Corrupted copies of folders of images: as in memory, as published, resumed, divided."""

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import time
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from robust_attacks import ImageRandom
from robust_bench import Interrupted, corrupting
from robust_bench.benchmarks import Options, cifar_c, imagenet, imagenet_attacks, imagenet_c
from robust_bench.cli import main
from robust_bench.conditions import Corrupted
from robust_bench.corrupt import Corrupt
from robust_bench.corrupt_report import ABOUT, KEPT, generated
from robust_bench.corrupted_arrays import CorruptedArrays
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SizeWarning
from robust_bench.datasets import Folder
from robust_bench.datasets.cifar import FOLDERS
from robust_bench.datasets.imagenet_classes import ClassSet
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.preprocess import AsStored
from robust_bench.shards import FINGERPRINT

WNIDS = ("n01440764", "n01443537", "n02085620")
QUICK = {"corruptions": "gaussian_noise,fog,contrast", "severities": "2,5"}


def make(folder: Path, classes, count: int, size: tuple[int, int], pictures) -> Path:
    """A folder of pictures <class>/val_<number>.png, numbered through."""
    images = pictures(len(classes) * count, size, seed=len(classes))
    for number, image in enumerate(images):
        name = classes[number // count]
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name / f"val_{number:04d}.png")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, pictures) -> Path:
    """Seven pictures of three classes, 64 x 64."""
    folder = make(tmp_path_factory.mktemp("tiny") / "val", WNIDS, 2, (64, 64), pictures)
    shutil.copyfile(folder / WNIDS[0] / "val_0000.png", folder / WNIDS[1] / "val_0006.png")
    return folder


@pytest.fixture(autouse=True)
def short_look(monkeypatch):
    """Judge the size of the files by one image, to save time."""
    monkeypatch.setattr(corrupting, "_LOOKED_AT", 1)


def copy(source: Path, out: Path, **changes) -> bool:
    settings = {"dir": source, "out": out, "preset": "tiny_imagenet", "workers": 0, "shard_size": 2}
    return Corrupt(**settings | changes)()


def tree(out: Path) -> dict[str, bytes]:
    """All files of a copy, but for the hidden folder and `corrupt.json`."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != ABOUT and not name.startswith(KEPT)}


def about(out: Path) -> dict:
    return json.loads((out / ABOUT).read_text(encoding="utf-8"))


def in_memory(condition: Corrupted, data, seed: int = 0) -> torch.Tensor:
    """What an evaluation gives the model."""
    images = torch.stack([data[id_][0] for id_ in range(len(data))])
    return condition.change(None, images, torch.zeros(len(data)), ImageRandom(seed, torch.arange(len(data))))


@pytest.mark.parametrize(("form", "severities"), [("jpeg", (4,)), ("png", (2,))])
def test_the_files_hold_what_is_made_in_memory(tiny, tmp_path, form, severities):
    assert copy(tiny, tmp_path / "out", corruptions="all", severities=list(severities), format=form, seed=5)
    labels = {name: label for label, name in enumerate(WNIDS)}
    clean = LabelledFolder(tiny, labels, preprocess=AsStored(stored=64))
    for corruption in CORRUPTIONS + EXTRA_CORRUPTIONS:
        for severity in severities:
            cell = tmp_path / "out" / corruption / str(severity)
            stored = LabelledFolder(cell, labels, preprocess=AsStored(stored=64))
            assert [stored.filename(id_).partition(".")[0] for id_ in range(7)] == [
                clean.filename(id_).partition(".")[0] for id_ in range(7)
            ]
            condition = Corrupted(
                corruption=corruption, severity=severity, preset="tiny_imagenet", store_jpeg85=form == "jpeg"
            )
            found = torch.stack([stored[id_][0] for id_ in range(7)])
            assert torch.equal(found, in_memory(condition, clean, seed=5)), (corruption, severity)
    assert {name.rpartition(".")[2] for name in tree(tmp_path / "out")} == {"JPEG" if form == "jpeg" else "png"}


def test_the_benchmark_of_imagenet_c_reads_it_and_says_whose_it_is(tmp_path, monkeypatch, pictures):
    """With three of the thousand classes: what imagenet-c:generated makes in memory, stored as JPEG."""
    source = make(tmp_path / "imagenet-val", WNIDS, 1, (250, 240), pictures)
    three = ClassSet(name="ImageNet", count=3, sha256=hashlib.sha256("\n".join(WNIDS).encode()).hexdigest())
    for module in (imagenet, imagenet_c):
        monkeypatch.setattr(module, "IMAGENET", three)
    copy(source, tmp_path / "imagenet-c", preset="imagenet")
    parts = imagenet_c.IMAGENET_C.build(Options(data=tmp_path)).parts
    assert [part.name for part in parts[:2]] == ["imagenet-val", "imagenet-c/gaussian_noise-1"]
    assert len(parts) == 76
    _, generated = imagenet_attacks.FAMILY.corrupted().build(Options(data=tmp_path)).parts
    for part, condition in zip(parts[1:], generated.conditions, strict=True):
        (stored,) = part.conditions
        assert (stored.corruption, stored.severity) == (condition.corruption, condition.severity)
        if stored.severity != 3:  # to save time
            continue
        found = torch.stack([part.data[id_][0] for id_ in range(3)])
        stored_so = dataclasses.replace(condition, store_jpeg85=True)
        assert torch.equal(found, in_memory(stored_so, generated.data)), condition.label
    made = parts[1].settings["generated"]
    assert made.pop("by").startswith("robust-bench")
    assert made == {
        "preset": "imagenet", "variant": "imagenet_c", "seed": 0, "frost": "procedural-v1", "jpeg85": True,
        "clean": "Resize(256, bilinear), CenterCrop(224)",
    }  # fmt: skip
    assert all("generated" in part.settings for part in parts[1:])
    assert "generated" not in parts[0].settings


def test_the_benchmark_of_tiny_imagenet_c_refuses_a_copy_that_is_not_complete(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet_c, "_TINY", 3)
    out = tmp_path / "tiny-imagenet-c"
    copy(tiny, out, shard="0/2")
    build = imagenet_c.TINY_IMAGENET_C.build
    with pytest.raises(ValueError, match="gaussian_noise at severity 1 is not complete"):
        build(Options(data=tmp_path))
    copy(tiny, out)
    assert build(Options(data=tmp_path)).parts[0].settings["generated"]["jpeg85"]
    copy(tiny, out, corruptions="extra", shard="0/2")
    with pytest.raises(ValueError, match="speckle_noise at severity 1 is not complete"):
        build(Options(data=tmp_path))


@pytest.fixture(scope="module")
def small(tmp_path_factory, pictures) -> Path:
    """Twenty pictures of ten classes, 32 x 32."""
    return make(tmp_path_factory.mktemp("small") / "test", [f"{n}" for n in range(10)], 2, (32, 32), pictures)


def test_the_benchmark_of_cifar_c_reads_arrays_as_published(small, tmp_path, monkeypatch):
    for name, value in (("IMAGES", 20), ("ROWS", 100)):
        monkeypatch.setattr(cifar_c, name, value)
    out = tmp_path / "CIFAR-10-C"
    assert copy(small, out, preset="cifar", corruptions="common,spatter", shard_size=9)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [KEPT, ABOUT, "labels.npy", *(f"{name}.npy" for name in (*CORRUPTIONS, "spatter"))]
    )
    parts = cifar_c.ENTRIES[0].build(Options(data=tmp_path)).parts
    assert len(parts) == 16 * 5
    clean = Folder(small, preprocess=AsStored(stored=32))
    for part in parts:
        (stored,) = part.conditions
        condition = Corrupted(corruption=stored.corruption, severity=stored.severity, preset="cifar")
        found, labels = zip(*(part.data[id_] for id_ in range(20)), strict=True)
        assert torch.equal(torch.stack(found), in_memory(condition, clean)), stored.label
        assert list(labels) == [clean[id_][1] for id_ in range(20)]
        assert part.settings["generated"]["preset"] == "cifar"
        assert part.settings["generated"]["jpeg85"] is False


def test_cifars_own_files_are_read(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    opened = SimpleNamespace(data=images, targets=[3, 8, 8, 0, 6, 6, 1, 6, 3])
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda root, train, download: opened)
    (tmp_path / "data" / FOLDERS[10]).mkdir(parents=True)
    for number, path in enumerate((tmp_path / "data", tmp_path / "data" / FOLDERS[10])):
        out = tmp_path / f"out{number}"
        copy(path, out, preset="cifar", corruptions="brightness", shard_size=4)
        assert np.load(out / "labels.npy").tolist() == opened.targets * 5
        clean = [(torch.from_numpy(image).permute(2, 0, 1) / 255, 0) for image in images]
        expected = in_memory(Corrupted(corruption="brightness", severity=4, preset="cifar"), clean)
        found = torch.from_numpy(np.load(out / "brightness.npy")[27:36]).permute(0, 3, 1, 2) / 255
        assert torch.equal(found, expected)
        assert about(out)["data"]["classes"] == {"0": 1, "1": 1, "3": 2, "6": 3, "8": 2}
        assert about(out)["data"]["name"] == "CIFAR-10"
    for name, changes in (("crop", {"preprocessing": "crop"}), ("size", {"size": 64})):
        with pytest.raises(ValueError, match="final size: leave --preprocessing crop and --size out"):
            copy(tmp_path / "data", tmp_path / name, preset="cifar", **changes)


def test_which_cifar_is_meant_must_be_clear(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for name, targets in (("CIFAR10", [3, 8]), ("CIFAR100", [99, 41])):
        opened = SimpleNamespace(data=images, targets=targets)
        monkeypatch.setattr(torchvision.datasets, name, lambda root, train, download, opened=opened: opened)
    data = tmp_path / "data"
    (data / FOLDERS[100]).mkdir(parents=True)
    copy(data, tmp_path / "alone", preset="cifar", corruptions="fog")
    (data / FOLDERS[10]).mkdir()
    with pytest.raises(ValueError, match=r"both cifar-10-batches-py and cifar-100-python: name the folder itself"):
        copy(data, tmp_path / "out", preset="cifar", corruptions="fog")
    assert not (tmp_path / "out").exists()
    copy(data / FOLDERS[100], tmp_path / "hundred", preset="cifar", corruptions="fog")
    copy(data / FOLDERS[10], tmp_path / "ten", preset="cifar", corruptions="fog")
    for name, expected, labels in (
        ("alone", "CIFAR-100", [99, 41]), ("hundred", "CIFAR-100", [99, 41]), ("ten", "CIFAR-10", [3, 8])
    ):  # fmt: skip
        assert about(tmp_path / name)["data"]["name"] == expected
        assert np.load(tmp_path / name / "labels.npy").tolist() == labels * 5


@pytest.mark.parametrize("preset", ["tiny_imagenet", "cifar"])
def test_the_files_do_not_depend_on_workers_or_batches(tiny, small, tmp_path, preset):
    source = tiny if preset == "tiny_imagenet" else small
    changes = {"preset": preset, "corruptions": "shot_noise,defocus_blur,frost,elastic_transform"}
    state = torch.get_rng_state()
    for number, (workers, size) in enumerate(((0, 64), (1, 1), (2, 3))):
        copy(source, tmp_path / f"{number}", workers=workers, shard_size=size, **changes)
    assert torch.equal(torch.get_rng_state(), state)
    assert tree(tmp_path / "0") == tree(tmp_path / "1") == tree(tmp_path / "2")
    assert len(tree(tmp_path / "0")) == (4 * 5 * 7 if preset == "tiny_imagenet" else 5)


def test_everything_that_was_done_lies_beside_the_copy(tiny, tmp_path):
    copy(tiny, tmp_path / "out", **QUICK, seed=3)
    found = about(tmp_path / "out")
    assert found["format"] == "robust-corrupt/1"
    assert {name: found[name] for name in ("preset", "variant", "seed", "frost", "jpeg85")} == {
        "preset": "tiny_imagenet", "variant": "imagenet_c", "seed": 3, "frost": "procedural-v1", "jpeg85": True,
    }  # fmt: skip
    assert found["files"] == {"format": "jpeg", "quality": 85, "subsampling": "4:2:0"}
    assert found["data"]["classes"] == dict(zip(WNIDS, (2, 3, 2), strict=True))
    assert (found["data"]["name"], found["data"]["images"], len(found["data"]["listing_sha256"])) == ("folder", 7, 64)
    assert found["data"]["preprocessing"]["steps"] == "none"
    assert found["corruptions"] == {"gaussian_noise": [2, 5], "fog": [2, 5], "contrast": [2, 5]}
    (command,) = found["commands"]
    assert (command["command"]["corruptions"], command["device"]) == (QUICK["corruptions"], "cpu")
    assert command["cells"] == found["corruptions"]
    assert found["versions"]["torch"] == metadata.version("torch")


def test_corruptions_and_severities_are_added(tiny, tmp_path):
    copy(tiny, tmp_path / "whole", corruptions="gaussian_noise,fog,contrast", severities="1,2,5")
    copy(tiny, tmp_path / "out", **QUICK)
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in tree(tmp_path / "out")}
    copy(tiny, tmp_path / "out", corruptions="fog", severities="1")
    assert about(tmp_path / "out")["corruptions"] == {"gaussian_noise": [2, 5], "fog": [1, 2, 5], "contrast": [2, 5]}
    first, second = about(tmp_path / "out")["commands"]
    assert (first["command"]["severities"], second["command"]["severities"]) == ("2,5", "1")
    assert (first["cells"]["fog"], second["cells"]) == ([2, 5], {"fog": [1]})
    copy(tiny, tmp_path / "out", corruptions="noise,digital", severities=[1])
    copy(tiny, tmp_path / "whole", corruptions="noise,digital", severities=[1])
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"format": "png"}, 'files.format was "jpeg", is "png"'),
        ({"preset": "imagenet", "size": 64}, 'preset was "tiny_imagenet", is "imagenet"'),
        ({"preprocessing": "crop"}, "preprocessing.stored was 64, is null"),
        ({"frost": "textures"}, 'frost was "procedural-v1", is "folder sha256:'),
        ({"dir": "others"}, "listing_sha256 was"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(tiny, tmp_path, changes, message):
    copy(tiny, tmp_path / "out", **QUICK)
    before = tree(tmp_path / "out")
    if "dir" in changes:
        shutil.copytree(tiny, tmp_path / "others")
        (tmp_path / "others" / WNIDS[0] / "val_0000.png").rename(tmp_path / "others" / WNIDS[0] / "val_0009.png")
        changes = {"dir": tmp_path / "others"}
    if "frost" in changes:
        changes = {"frost": str(tiny / WNIDS[0])}
    with pytest.raises(ValueError, match="holds another corrupted copy") as refusal:
        copy(tiny, tmp_path / "out", **QUICK | {"corruptions": "all"} | changes)
    assert message in str(refusal.value)
    assert tree(tmp_path / "out") == before


def test_a_copy_goes_on_only_on_the_kind_of_device_it_was_begun_on(tiny, tmp_path):
    copy(tiny, tmp_path / "out", **QUICK)
    file = tmp_path / "out" / KEPT / FINGERPRINT
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["device"] == "cpu"
    file.write_text(json.dumps(found | {"device": "cuda"}), encoding="utf-8")
    with pytest.raises(ValueError, match='device was "cuda", is "cpu"'):
        copy(tiny, tmp_path / "out", corruptions="snow")


def test_the_images_that_are_made_together_may_change_unless_they_are_a_file(tiny, small, tmp_path):
    copy(tiny, tmp_path / "whole", **QUICK)
    copy(tiny, tmp_path / "out", **QUICK, shard="0/2")
    assert copy(tiny, tmp_path / "out", **QUICK, shard_size=3)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    changes = {"preset": "cifar", "corruptions": "fog"}
    copy(small, tmp_path / "arrays", **changes, shard="0/2")
    with pytest.raises(ValueError, match="holds another corrupted copy: shard_size was 2, is 3"):
        copy(small, tmp_path / "arrays", **changes, shard_size=3)


def test_a_folder_that_only_looks_begun_is_not_written_to(tiny, tmp_path):
    (tmp_path / "out" / KEPT).mkdir(parents=True)
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(ValueError, match=r"holds other files, such as mine\.txt"):
        copy(tiny, tmp_path / "out", **QUICK)


def test_files_without_the_hidden_folder_are_not_taken_for_published_before_they_are_complete(tiny, tmp_path):
    copy(tiny, tmp_path / "out", **QUICK, shard="0/2")
    shutil.copytree(tmp_path / "out", tmp_path / "other", ignore=shutil.ignore_patterns(".*"))
    with pytest.raises(ValueError, match="fog at severity 2 is not complete"):
        generated(tmp_path / "other", [("fog", 2)])


@pytest.mark.parametrize("preset", ["tiny_imagenet", "cifar"])
def test_a_second_call_computes_nothing_and_a_lost_file_is_made_again(tiny, small, tmp_path, monkeypatch, preset):
    source, lost = (tiny, f"fog/2/{WNIDS[1]}/val_0006.JPEG") if preset == "tiny_imagenet" else (small, "fog.npy")
    changes = {"preset": preset, "corruptions": "fog,contrast"}
    copy(source, tmp_path / "out", **changes)
    before, written = tree(tmp_path / "out"), about(tmp_path / "out")
    (tmp_path / "out" / lost).unlink()
    assert copy(source, tmp_path / "out", **changes)
    assert tree(tmp_path / "out") == before
    written = (tmp_path / "out" / ABOUT).read_bytes()
    monkeypatch.setattr(corrupting, "corrupt", None)  # would fail
    assert copy(source, tmp_path / "out", **changes)
    assert (tmp_path / "out" / ABOUT).read_bytes() == written


@pytest.mark.parametrize("preset", ["tiny_imagenet", "cifar"])
def test_separate_jobs_make_the_copy_of_one(tiny, small, tmp_path, preset):
    source = tiny if preset == "tiny_imagenet" else small
    changes = {"preset": preset, "corruptions": "fog,contrast"}
    copy(source, tmp_path / "whole", **changes)
    done = []
    for number in (2, 0):
        assert not copy(source, tmp_path / "jobs", shard=f"{number}/3", **changes)
        assert about(tmp_path / "jobs")["corruptions"] == {}
        done.append(len(list((tmp_path / "jobs").rglob("*.JPEG" if preset == "tiny_imagenet" else "0*.npy"))))
    assert 0 < done[0] < done[1]
    assert not list((tmp_path / "jobs").glob("*.npy"))
    assert copy(source, tmp_path / "jobs", shard="1/3", **changes)
    assert tree(tmp_path / "jobs") == tree(tmp_path / "whole")
    assert about(tmp_path / "jobs")["corruptions"] == about(tmp_path / "whole")["corruptions"]


def files_of(out: Path) -> list[str]:
    """Names of files that are not hidden; the folder may change meanwhile."""
    return [name for _, _, names in os.walk(out) for name in names if not name.startswith(".")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("preset", "at_once"), [("tiny_imagenet", 2), ("cifar", 5)])
def test_a_process_that_is_killed_again_and_again_leaves_the_same_files(tiny, small, tmp_path, preset, at_once):
    source, out = tiny if preset == "tiny_imagenet" else small, tmp_path / "out"
    changes = {"preset": preset, "corruptions": "fog,contrast", "shard_size": at_once}
    copy(source, tmp_path / "whole", **changes)
    draws = random.Random(0)
    kills = 0
    while True:
        child = os.fork()
        if not child:
            try:
                copy(source, out, **changes)
                os._exit(0)
            finally:
                os._exit(1)
        before, more = len(files_of(out)), draws.randint(0, 3) if kills < 8 else 999
        while len(files_of(out)) < before + more and not os.waitid(
            os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            time.sleep(0.0005)
        time.sleep(draws.random() * 0.005)
        os.kill(child, signal.SIGKILL)  # one that has ended is still there, as nobody has waited for it
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in out.glob("*.npy"):  # what has its name is complete
            assert file.read_bytes() == (tmp_path / "whole" / file.name).read_bytes()
        if code != -signal.SIGKILL:
            break
        kills += 1
    assert (code, kills >= 3) == (0, True)
    assert tree(out) == tree(tmp_path / "whole")
    assert about(out)["corruptions"] == about(tmp_path / "whole")["corruptions"]


def test_arrays_that_were_cut_off_while_they_were_put_together_are_put_together_again(small, tmp_path, monkeypatch):
    changes = {"preset": "cifar", "corruptions": "fog,contrast"}
    copy(small, tmp_path / "whole", **changes)

    def stop(self, name):
        if name == "contrast":
            raise KeyboardInterrupt
        return content(self, name)

    content = CorruptedArrays._content
    monkeypatch.setattr(CorruptedArrays, "_content", stop)
    with pytest.raises(Interrupted):
        copy(small, tmp_path / "out", **changes)
    assert [path.name for path in (tmp_path / "out").glob("*.npy")] != []
    assert not (tmp_path / "out" / "contrast.npy").exists()
    assert about(tmp_path / "out")["corruptions"] == {}
    monkeypatch.undo()
    copy(small, tmp_path / "out", **changes)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_ctrl_c_keeps_what_is_finished(tiny, tmp_path, monkeypatch):
    copy(tiny, tmp_path / "whole", **QUICK)
    take, asked = LabelledFolder.__getitem__, []

    def stop(self, index):
        asked.append(index)
        if index == 5 and len(asked) > 4:  # not at the first look
            raise KeyboardInterrupt
        return take(self, index)

    monkeypatch.setattr(LabelledFolder, "__getitem__", stop)
    with pytest.raises(Interrupted):
        copy(tiny, tmp_path / "out", **QUICK)
    monkeypatch.undo()
    assert len(tree(tmp_path / "out")) == 4 * 6
    copy(tiny, tmp_path / "out", **QUICK)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_and_what_is_finished_stays(tiny, tmp_path, workers):
    shutil.copytree(tiny, tmp_path / "data")
    damaged = tmp_path / "data" / WNIDS[2] / "val_0004.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    os.truncate(damaged, len(whole))  # the size is the same
    with pytest.raises(ValueError, match=r"cannot read the image .*n02085620/val_0004.png"):
        copy(tmp_path / "data", tmp_path / "out", **QUICK, workers=workers, shard_size=1)
    assert about(tmp_path / "out")["corruptions"] == {}
    kept = tree(tmp_path / "out")
    damaged.write_bytes(whole)
    copy(tmp_path / "data", tmp_path / "out", **QUICK, workers=workers, shard_size=1)
    copy(tmp_path / "data", tmp_path / "whole", **QUICK)
    assert kept.items() < tree(tmp_path / "whole").items()
    assert len(kept) == 5 * 6 or workers
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_too_little_room_is_refused_before_anything_is_written(tiny, tmp_path, monkeypatch):
    copy(tiny, tmp_path / "whole", **QUICK)
    taken = sum(-(-len(content) // 4096) * 4096 for content in tree(tmp_path / "whole").values())
    monkeypatch.setattr(corrupting, "_LOOKED_AT", 4)
    for share, enough in ((1.2, True), (0.8, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=share * taken: SimpleNamespace(free=free))
        out = tmp_path / f"{share}"
        if enough:
            assert copy(tiny, out, **QUICK)
        else:
            with pytest.raises(ValueError, match=r"needs about 1.*kB .* are free there"):
                copy(tiny, out, **QUICK)
            assert not out.exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_constants_that_do_not_fit_are_told_once(tiny, tmp_path, capfd, workers):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        copy(tiny, tmp_path / "out", **QUICK, preset="imagenet", size=64, preprocessing="none", workers=workers)
    assert [each.category for each in told] == [SizeWarning]
    assert "made for 224 pixels" in str(told[0].message)
    assert "SizeWarning" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"corruptions": "fogg"}, ValueError, "unknown corruption 'fogg'"),
        ({"severities": "6"}, ValueError, "severities must be some of"),
        ({"preset": "cifar100"}, ValueError, "unknown preset 'cifar100'"),
        ({"variant": "imagecorruptions"}, ValueError, "exists with preset 'imagenet' only"),
        ({"variant": "other"}, ValueError, "unknown variant 'other'"),
        ({"frost": "nowhere"}, ValueError, "there is no nowhere"),
        ({"format": "gif"}, ValueError, "format must be 'jpeg' or 'png'"),
        ({"preprocessing": "resize"}, ValueError, "preprocessing must be 'crop' or 'none'"),
        ({"size": 16}, ValueError, "needs images of 32 pixels a side or more, got 16 x 16"),
        ({"size": 0}, ValueError, "size must be at least 1"),
        ({"shard_size": 0}, ValueError, "shard_size must be at least 1"),
        ({"workers": -1}, ValueError, "workers must be at least 0"),
        ({"shard": "3/3"}, ValueError, "0 <= i < n"),
        ({"device": "foo"}, ValueError, "device 'foo'"),
        ({"dir": Path("nowhere")}, FileNotFoundError, "no image folder nowhere"),
        ({"preset": "cifar", "format": "png"}, ValueError, "writes arrays, .npy, as published"),
        ({"preset": "cifar", "severities": "5"}, ValueError, "place tells its severity, got 5"),
        (
            {"preset": "cifar"},
            ValueError,
            r"val_0000\.png: expected 32 x 32 pixels, got 64 x 64: give --preprocessing crop",
        ),
        ({"preset": "imagenet", "preprocessing": "none"}, ValueError, "expected 224 .*: give --preprocessing crop"),
    ],
)
def test_impossible_copies_are_errors_and_write_nothing(tiny, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        copy(tiny, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_the_source_and_folders_of_others_are_not_written_to(tiny, tmp_path):
    for out in (tiny, tiny / "copy", tiny.parent):
        with pytest.raises(ValueError, match="holds the other"):
            copy(tiny, out)
    (tmp_path / "other.txt").touch()
    with pytest.raises(ValueError, match=r"holds other files, such as other.txt"):
        copy(tiny, tmp_path)
    with pytest.raises(NotADirectoryError, match="cannot be a folder"):
        copy(tiny, tmp_path / "other.txt")


def test_the_command(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "corrupt.yaml").write_text("preset: tiny_imagenet\ncorruptions: [fog, contrast]\nworkers: 0\n")
    arguments = ["corrupt", str(tiny), "--config", str(tmp_path / "corrupt.yaml"), "--out", str(out)]
    assert main([*arguments, "--severities", "3", "--shard-size", "2", "--shard", "1/2"]) == 0
    assert "part 1/2 is done: the last of the jobs finishes the copy" in capsys.readouterr().out
    assert main([*arguments, "--severities", "3", "--shard-size", "2", "--progress", "true"]) == 0
    shown = capsys.readouterr()
    assert f"copy: {out}" in shown.out
    assert "4/4" in shown.err  # what the first job left
    assert about(out)["corruptions"] == {"fog": [3], "contrast": [3]}
    assert main([*arguments, "--severities", "3", "--shard-size", "2", "--seed", "1"]) == 2
    assert "seed was 0, is 1" in capsys.readouterr().err
    assert main([*arguments, "--severities", "1,9"]) == 2
    assert "got '1,9'" in capsys.readouterr().err
