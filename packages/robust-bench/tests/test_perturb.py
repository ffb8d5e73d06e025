"""Adversarial copies of a folder of images: inside the ball, without loss, resumed, divided."""

import json
import math
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from robust_attacks import APGD, PGD, ImageRandom, Linf
from robust_bench import EvaluationWarning, Interrupted, evaluate
from robust_bench.copies import ABOUT, IMAGES, KEPT, stored_size
from robust_bench.datasets import Folder
from robust_bench.metrics import clopper_pearson
from robust_bench.perturb import Perturb
from robust_bench.preprocess import AsStored, declared
from robust_models import create_model
from torch import nn

CLASSES = ("blue", "green", "red")  # in the order of their labels
COUNT = 7  # images per class


def picture(label: int, generator: torch.Generator, side: int) -> Image.Image:
    """A noisy picture, slightly of the colour of its class."""
    values = torch.rand(side, side, 3, generator=generator)
    values[..., 2 - label] += 0.12
    return Image.fromarray(values.clamp(0, 1).mul(255).round().to(torch.uint8).numpy())


def make(folder: Path, side: int) -> Path:
    generator = torch.Generator().manual_seed(side)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(COUNT):
            picture(label, generator, side).save(folder / name / f"{number}.png")
    return folder


def train(name: str, data: Folder, file: Path) -> nn.Module:
    """Fit a few pictures, so that attacks break some of them."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, in_chans=3)
    images = torch.stack([data[index][0] for index in range(len(data))])
    labels = torch.tensor([data[index][1] for index in range(len(data))])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    torch.save(model.state_dict(), file)
    return model.eval()


class Place:
    """A folder of images, and a model that knows them."""

    def __init__(self, root: Path, side: int) -> None:
        self.side, self.spec, self.weights = side, f"small_cnn_{side}", root / "model.pt"
        self.data = make(root / "data", side)
        self.opened = Folder(self.data, preprocess=AsStored(stored=side))
        self.model = train(self.spec, self.opened, self.weights)

    def perturb(self, out: Path, **changes):
        settings = {
            "dir": self.data, "out": out, "model": self.spec, "weights": self.weights, "eps": "4/255", "steps": 5,
            "device": "cpu", "workers": 0, "shard_size": 4,
        }  # fmt: skip
        return Perturb(**settings | changes)()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("small"), 8)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("large"), 32)


def levels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert (image.mode, image.format) == ("RGB", "PNG")
        return np.asarray(image).astype(int)


def about(out: Path) -> dict:
    return json.loads((out / ABOUT).read_text(encoding="utf-8"))


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / IMAGES).read_text(encoding="utf-8").splitlines()]


def tree(out: Path) -> dict[str, bytes]:
    """All files of a copy, but for times."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert {f"{name}/{number}" for name in CLASSES for number in range(COUNT)} == {
        name.rpartition(".")[0] for name in files if "/" in name and not name.startswith(KEPT)
    }
    kept = {name: path.read_bytes() for name, path in files.items() if not name.startswith(KEPT) and name != ABOUT}
    known = {key: value for key, value in about(out).items() if key in ("attack", "data", "accuracy", "model", "seed")}
    known["model"].pop("weights")
    return kept | {ABOUT: json.dumps(known).encode()}


@pytest.mark.parametrize(("norm", "eps"), [("Linf", "4/255"), ("Linf", 0.0201), ("L2", 0.3), ("L1", "12")])
@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_all_copies_are_inside_the_ball_in_whole_levels(large, tmp_path, attack, norm, eps):
    large.perturb(tmp_path / "out", attack=attack, norm=norm, eps=eps)
    allowed = float(eps) * 255 if not isinstance(eps, str) else {"4/255": 4, "12": 12 * 255}[eps]
    sizes = []
    for line in lines(tmp_path / "out"):
        change = levels(tmp_path / "out" / line["name"]) - levels(large.data / line["source"])
        size = {"Linf": np.abs(change).max(), "L1": np.abs(change).sum(), "L2": math.sqrt((change**2).sum())}[norm]
        assert line["distance"] == pytest.approx(size / 255, rel=1e-5)
        assert line["distance"] <= allowed / 255
        sizes.append(size)
    assert len(sizes) == 3 * COUNT
    assert max(sizes) <= allowed * (1 + 1e-9)
    assert max(sizes) >= (math.floor(allowed) if norm == "Linf" else 0.98 * allowed)  # the ball is used


@pytest.mark.parametrize(("attack", "settings"), [("pgd", {}), ("autoattack", {"version": "fast"}), ("deepfool", {})])
def test_the_accuracies_are_those_of_an_evaluation_of_the_files(large, tmp_path, attack, settings):
    eps = 12 / 255
    changes = {"steps": None if attack == "autoattack" else 5, "settings": settings, "eps": eps}
    result = large.perturb(tmp_path / "out", attack=attack, **changes)
    assert stored_size(tmp_path / "out") == 32
    copy = Folder(tmp_path / "out", preprocess=AsStored(stored=32))
    assert copy.classes == CLASSES
    found = {"clean": evaluate(large.model, large.opened).rows[0], "written": evaluate(large.model, copy).rows[0]}
    accuracy = about(tmp_path / "out")["accuracy"]
    for stage, row in found.items():
        assert (accuracy[stage]["correct"], accuracy[stage]["count"]) == (row.correct, 3 * COUNT)
        assert (accuracy[stage]["low"], accuracy[stage]["high"]) == clopper_pearson(row.correct, 3 * COUNT)
    assert found["written"].correct < found["clean"].correct
    assert [row.correct for row in result.rows] == [each["correct"] for each in accuracy.values()]
    with torch.no_grad():
        predictions = large.model(torch.stack([copy[index][0] for index in range(len(copy))])).argmax(dim=1)
    assert [line["predictions"]["written"] for line in lines(tmp_path / "out")] == predictions.tolist()


def test_the_usual_way_of_evaluating_a_folder_reads_the_copy(small, tmp_path):
    """The small model resizes to its own size without a crop, so its copy needs no special treatment."""
    small.perturb(tmp_path / "out")
    written = about(tmp_path / "out")["accuracy"]["written"]
    result = evaluate(small.model, Folder(tmp_path / "out", preprocess=declared(small.model)))
    assert result.rows[0].correct == written["correct"]


@pytest.mark.parametrize("attack", ["pgd", "mifgsm", "fgsm", "apgd", "square", "fab"])
def test_the_files_are_the_same_at_any_batch_size(small, tmp_path, attack):
    own = {"fgsm": {}, "square": {"queries": 20}, "fab": {"steps": 5, "restarts": 1}}
    changes = {"attack": attack, "settings": own.get(attack, {"steps": 5}), "steps": None}
    trees = []
    for size in (1, 7, 64):
        small.perturb(tmp_path / str(size), batch_size=size, **changes)
        trees.append(tree(tmp_path / str(size)))
    assert trees[0] == trees[1] == trees[2]


def test_npy_files_hold_the_floats_of_the_attack(large, tmp_path):
    large.perturb(tmp_path / "out", format="npy", attack="apgd", seed=5)
    images, labels = (torch.stack([torch.as_tensor(pair[part]) for pair in large.opened]) for part in (0, 1))
    attack = APGD(threat=Linf(eps=4 / 255), steps=5)
    expected = attack(large.model, images, labels, random=ImageRandom(5, torch.arange(3 * COUNT)))
    for line in lines(tmp_path / "out"):
        found = torch.from_numpy(np.load(tmp_path / "out" / line["name"]))
        assert torch.equal(found, expected[line["id"]])
        distance = float((found.double() - images[line["id"]]).abs().max())
        assert line["distance"] == pytest.approx(distance, abs=1e-8)
    accuracy = about(tmp_path / "out")["accuracy"]
    assert accuracy["written"]["correct"] == accuracy["adversarial"]["correct"]
    assert not torch.equal(expected, PGD(threat=Linf(eps=4 / 255), steps=5)(large.model, images, labels))


def test_everything_that_was_done_lies_beside_the_copy(large, tmp_path):
    large.perturb(
        tmp_path / "out", eps="4/255", step_size="1/255", restarts=2, seed=3, settings={"loss": "dlr"}, name="mine"
    )
    found = about(tmp_path / "out")
    assert found["format"] == "robust-perturb/1"
    attack = {"attack": "PGD", "norm": "Linf", "eps": 4 / 255, "steps": 5, "restarts": 2, "step_size": 1 / 255}
    assert attack.items() <= found["attack"].items()
    assert found["attack"]["loss"] == "dlr"
    assert found["seed"] == found["command"]["seed"] == 3
    assert found["model"]["spec"] == "small_cnn_32"
    assert (tmp_path / "out" / found["model"]["weights"]).resolve() == large.weights.resolve()
    assert len(found["model"]["sha256"]) == len(found["data"]["sha256"]) == 64
    assert found["data"]["classes"] == dict.fromkeys(CLASSES, COUNT)
    assert found["data"]["preprocessing"]["steps"] == "Resize(32, bilinear), CenterCrop(32)"
    assert found["files"]["format"] == "png"
    assert found["versions"]["torch"] == metadata.version("torch")
    assert set(found["accuracy"]) == set(found["seconds"]) == {"clean", "adversarial", "written"}
    first = lines(tmp_path / "out")[0]
    assert (first["name"], first["source"], first["class"], first["label"]) == ("blue/0.png", "blue/0.png", "blue", 0)


def test_images_get_the_size_of_the_model_and_only_once(small, large, tmp_path):
    """The files of 32 x 32 become 8 x 8; a copy of the copy does not resize again."""
    settings = {"model": "small_cnn_8", "weights": small.weights}
    large.perturb(tmp_path / "one", **settings, eps=0)
    expected = Folder(large.data, transform=lambda image: torch.from_numpy(np.array(image.resize((8, 8), 2))))
    for line in lines(tmp_path / "one"):
        wanted = expected[line["id"]][0].mul(255).round().numpy()
        assert np.abs(levels(tmp_path / "one" / line["name"]) - wanted).max() <= 1
    large.perturb(tmp_path / "two", **settings, dir=tmp_path / "one", eps=0)
    assert about(tmp_path / "two")["data"]["preprocessing"] == {"stored": 8, "size": 8, "steps": "none"}
    for line in lines(tmp_path / "two"):
        assert np.array_equal(levels(tmp_path / "one" / line["name"]), levels(tmp_path / "two" / line["name"]))
    with pytest.raises(ValueError, match="expected 8 x 8 pixels, got 32 x 32"):
        large.perturb(tmp_path / "three", **settings, preprocessing="none")


def test_a_class_map_gives_the_labels(small, tmp_path):
    (tmp_path / "labels.txt").write_text("red 1\ngreen 0\nblue 2\n", encoding="utf-8")
    small.perturb(tmp_path / "out", class_map=tmp_path / "labels.txt")
    assert {(line["class"], line["label"]) for line in lines(tmp_path / "out")} == {
        ("red", 1), ("green", 0), ("blue", 2)
    }  # fmt: skip
    small.perturb(tmp_path / "usual")
    assert about(tmp_path / "out")["accuracy"]["clean"] != about(tmp_path / "usual")["accuracy"]["clean"]


@pytest.mark.parametrize("form", ["png", "npy"])
def test_eps_0_gives_the_clean_images(large, tmp_path, form):
    large.perturb(tmp_path / "out", eps=0, format=form)
    for line in lines(tmp_path / "out"):
        clean, file = levels(large.data / line["source"]), tmp_path / "out" / line["name"]
        if form == "png":
            assert np.array_equal(levels(file), clean)
        else:
            assert np.array_equal(np.load(file), (clean.transpose(2, 0, 1) / np.float32(255)).astype(np.float32))
        assert line["distance"] == 0
        assert len(set(line["predictions"].values())) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": "6/255"}, "attack.eps was 0.01568627450980392, is 0.023529411764705882"),
        ({"steps": 6}, "attack.steps was 5, is 6"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"format": "npy"}, 'files was "png", is "npy"'),
        ({"shard_size": 5}, "shard_size was 4, is 5"),
        ({"weights": "others"}, "model_sha256 was"),
        ({"dir": "others"}, "data_sha256 was"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(small, large, tmp_path, changes, message):
    small.perturb(tmp_path / "out")
    before = tree(tmp_path / "out")
    if "weights" in changes:
        state = small.model.state_dict()
        torch.save(state | {"model.head.bias": state["model.head.bias"] + 1}, tmp_path / "others.pt")
        changes = {"weights": tmp_path / "others.pt"}
    if "dir" in changes:
        changes = {"dir": large.data}
    with pytest.raises(ValueError, match="holds another adversarial copy") as refusal:
        small.perturb(tmp_path / "out", **changes)
    assert message in str(refusal.value)
    assert tree(tmp_path / "out") == before


def test_a_second_call_computes_nothing_and_a_lost_image_is_made_again(small, tmp_path, monkeypatch):
    first = small.perturb(tmp_path / "out")
    before, written = tree(tmp_path / "out"), (tmp_path / "out" / ABOUT).read_bytes()
    (tmp_path / "out" / "red" / "3.png").unlink()
    small.perturb(tmp_path / "out")
    assert tree(tmp_path / "out") == before
    (tmp_path / "out" / ABOUT).write_bytes(written)
    monkeypatch.setattr(nn.Conv2d, "forward", None)  # would fail
    assert [row.correct for row in small.perturb(tmp_path / "out").rows] == [row.correct for row in first.rows]
    assert (tmp_path / "out" / ABOUT).read_bytes() == written


def test_separate_jobs_make_the_copy_of_one(small, tmp_path):
    small.perturb(tmp_path / "whole")
    for number in (2, 0):
        result = small.perturb(tmp_path / "jobs", shard=f"{number}/3", batch_size=2)
        assert 0 < result.rows[0].count < 3 * COUNT
        assert not (tmp_path / "jobs" / ABOUT).exists()
    assert small.perturb(tmp_path / "jobs", shard="1/3", batch_size=2).rows[0].count == 3 * COUNT
    assert tree(tmp_path / "jobs") == tree(tmp_path / "whole")


KILL = """
import os, random, signal, sys, time
from pathlib import Path

import torch
from robust_bench.perturb import Perturb

torch.set_num_threads(1)
data, weights, out = map(Path, sys.argv[1:])
common = {"dir": data, "model": "small_cnn_8", "weights": weights, "eps": "4/255", "device": "cpu", "workers": 0}
Perturb(**common, out=out.with_name("first"), attack="square", settings={"queries": 1})()  # loads what takes long
perturb = Perturb(**common, out=out, steps=5, shard_size=1, batch_size=2)
draws = random.Random(0)
kills = 0
while True:
    child = os.fork()
    if not child:
        perturb()
        os._exit(0)
    count = lambda: sum(1 for _ in out.glob("*/*.png"))
    before, more = count(), draws.randint(0, 1) if kills < 12 else 999
    while count() < before + more and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.0005)
    time.sleep(draws.random() * 0.005)
    os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    kills += 1
print(kills)
"""


def test_a_process_that_is_killed_again_and_again_leaves_the_same_files(small, tmp_path):
    small.perturb(tmp_path / "whole", shard_size=1)
    (tmp_path / "kill.py").write_text(KILL, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "kill.py"), str(small.data), str(small.weights), str(tmp_path / "out")],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 4, done.stdout
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_ctrl_c_keeps_what_is_finished(small, tmp_path, monkeypatch):
    small.perturb(tmp_path / "whole")
    take, taken = Folder.__getitem__, []

    def stop(self, index):
        taken.append(index)
        if index == 10:
            raise KeyboardInterrupt
        return take(self, index)

    monkeypatch.setattr(Folder, "__getitem__", stop)
    with pytest.raises(Interrupted):
        small.perturb(tmp_path / "out", batch_size=4)
    monkeypatch.setattr(Folder, "__getitem__", take)
    assert len(list((tmp_path / "out").glob("*/*.png"))) == 8
    assert not (tmp_path / "out" / ABOUT).exists()
    small.perturb(tmp_path / "out", batch_size=4)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"eps": "much"}, ValueError, "a fraction such as 4/255, got 'much'"),
        ({"eps": float("nan")}, ValueError, "eps must be a finite number >= 0"),
        ({"eps": "0.5/255"}, ValueError, "a fraction such as 4/255"),
        ({"eps": 0.5 / 255}, ValueError, "less than one grey level"),
        ({"eps": 8.0}, ValueError, "did you mean 8 / 255"),
        ({"attack": "pgdd"}, ValueError, "unknown attack 'pgdd'"),
        ({"attack": "fgsm"}, ValueError, "'fgsm' has no setting 'steps'"),
        ({"format": "jpeg"}, ValueError, "format must be 'png' or 'npy'"),
        ({"preprocessing": "crop"}, ValueError, "preprocessing must be 'model' or 'none'"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"shard": "3/3"}, ValueError, "0 <= i < n"),
        ({"device": "foo"}, ValueError, "device 'foo'"),
        ({"dir": Path("nowhere")}, FileNotFoundError, "no image folder nowhere"),
        ({"weights": Path("none.pt")}, FileNotFoundError, "no file of weights none.pt"),
        ({"weights": None}, ValueError, "has no weights"),
        ({"class_map": Path("none.txt")}, FileNotFoundError, "no class map none.txt"),
    ],
)
def test_impossible_copies_are_errors_and_write_nothing(small, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        small.perturb(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_the_source_and_folders_of_others_are_not_written_to(small, tmp_path):
    before = sorted(small.data.rglob("*"))
    for out in (small.data, small.data / "copy"):
        with pytest.raises(ValueError, match="holds the other"):
            small.perturb(out)
    assert sorted(small.data.rglob("*")) == before
    (tmp_path / "other.txt").touch()
    with pytest.raises(ValueError, match=r"holds other files, such as other.txt"):
        small.perturb(tmp_path)
    with pytest.raises(NotADirectoryError, match="cannot be a folder"):
        small.perturb(tmp_path / "other.txt")


def test_a_damaged_image_is_named(small, tmp_path):
    shutil.copytree(small.data, tmp_path / "data")
    (tmp_path / "data" / "red" / "2.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read the image .*red/2.png"):
        small.perturb(tmp_path / "out", dir=tmp_path / "data")


def test_warnings_are_kept_beside_the_copy(small, tmp_path):
    with pytest.warns(EvaluationWarning, match="5 logits and the benchmark has 3 classes"):
        small.perturb(tmp_path / "out", weights=None, pretrained=False, num_classes=5)
    assert "5 logits" in about(tmp_path / "out")["warnings"][0]
    small.perturb(tmp_path / "quiet")
    assert "warnings" not in about(tmp_path / "quiet")


def test_a_model_without_numbers_is_refused(small, tmp_path):
    state = {name: tensor * float("nan") for name, tensor in small.model.state_dict().items()}
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match="logits that are NaN or infinite"):
        small.perturb(tmp_path / "out", weights=tmp_path / "nan.pt")


def test_the_model_and_the_random_state_stay_as_they_were(small, tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    small.perturb(tmp_path / "a")
    after_build = torch.get_rng_state()
    torch.set_rng_state(before)
    create_model("small_cnn_8", num_classes=3, in_chans=3)
    assert torch.equal(torch.get_rng_state(), after_build)  # only building the model draws


@pytest.mark.parametrize("eps", ["4/255", "0.0157", "0"])
def test_the_command_line_takes_the_settings(eps):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("dir", type=Path)
    parser.add_class_arguments(Perturb, skip={"dir"})
    given = parser.parse_args([
        "images", "--eps", eps, "--model", "small_cnn_8", "--out", "copy", "--step_size", "1/255",
        "--settings.eot", "2", "--settings.random_start", "false", "--settings.loss", "dlr",
    ])  # fmt: skip
    perturb = Perturb(**given.as_dict())
    assert (perturb.dir, perturb.out) == (Path("images"), Path("copy"))
    assert perturb.settings == {"eot": 2, "random_start": False, "loss": "dlr"}
    threat = perturb._attack().attack.threat
    assert threat == Linf(eps={"4/255": 4 / 255, "0.0157": 0.0157, "0": 0.0}[eps])
