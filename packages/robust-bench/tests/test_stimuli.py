"""Folders of model-vs-human pictures."""

import pickle

import pytest
import torch
from PIL import Image
from robust_bench.datasets.stimuli import Stimuli
from robust_bench.preprocess import AsStored
from torch.utils.data import DataLoader

CONTRAST = [
    "0001_cop_dnn_c30_knife_10_n03041632_7380.png",
    "0002_cop_dnn_c100_bicycle_10_n03792782_5966.png",
    "0003_cop_dnn_c01_bird_10_n01601694_10802.png",
]


def draw(file, colour=(255, 0, 51), side=224):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(file)


@pytest.fixture
def edges(tmp_path):
    for number, name in enumerate(["truck/truck2", "airplane/airplane1", "airplane/airplane10", "knife/knife1"]):
        draw(tmp_path / "edge" / f"{name}.png", colour=(number, 255, 51))
    return tmp_path / "edge"


def test_labels_are_positions_in_alphabetical_order(edges):
    data = Stimuli(edges, dataset="edge")
    assert [data.filename(index) for index in range(len(data))] == [
        "airplane/airplane1.png",
        "airplane/airplane10.png",
        "knife/knife1.png",
        "truck/truck2.png",
    ]
    assert [data[index][1] for index in range(4)] == [0, 0, 13, 15]
    image = data[3][0]
    assert image.dtype == torch.float32
    assert image.shape == (3, 224, 224)
    assert image[:, 100, 7].tolist() == pytest.approx([0.0, 1.0, 0.2])


@pytest.mark.parametrize("inside", ["dnn/session-1", "session-1", ""])
def test_takes_pictures_from_every_layout(tmp_path, inside):
    for name in CONTRAST:
        draw(tmp_path / inside / name)
    data = Stimuli(tmp_path, dataset="contrast")
    assert [each.condition for each in data.stimuli] == ["c30", "c100", "c01"]
    assert [data[index][1] for index in range(3)] == [13, 2, 3]
    assert data.filename(0) == f"{inside}/{CONTRAST[0]}".removeprefix("/")


def test_only_the_pictures_for_models_count_where_people_s_lie_beside_them(tmp_path):
    draw(tmp_path / "dnn" / "session-1" / CONTRAST[0])
    draw(tmp_path / "s01" / "session-1" / CONTRAST[0].replace("dnn", "s01"))
    assert len(Stimuli(tmp_path, dataset="contrast")) == 1


def test_hidden_files_and_others_are_passed_over(edges):
    (edges / "airplane" / "._airplane1.png").write_bytes(b"what a Mac puts into archives")
    (edges / "README.txt").write_text("hello")
    assert len(Stimuli(edges, dataset="edge")) == 4


def test_pictures_keep_their_pixels_and_only_another_input_size_resizes_them(edges):
    file = edges / "truck" / "truck2.png"
    noise = torch.randint(0, 256, (224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(file)
    kept = Stimuli(edges, dataset="edge")[3][0]
    torch.testing.assert_close(kept, noise.permute(2, 0, 1) / 255, rtol=0, atol=0)
    resized = Stimuli(edges, dataset="edge", preprocess=AsStored(stored=224, size=56))[3][0]
    assert resized.shape == (3, 56, 56)
    torch.testing.assert_close(resized.mean(), kept.mean(), rtol=0, atol=0.01)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_and_resized_pictures_are_named(edges, workers):
    file = edges / "knife" / "knife1.png"
    draw(file, side=256)
    with pytest.raises(ValueError, match=r"cannot read the image .*knife1\.png: expected 224 x 224 pixels, got 256"):
        list(DataLoader(Stimuli(edges, dataset="edge"), 4, num_workers=workers))
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"cannot read the image .*knife1\.png"):
        list(DataLoader(Stimuli(edges, dataset="edge"), 4, num_workers=workers))


def test_the_fingerprint_follows_files_and_preprocessing(edges):
    before = Stimuli(edges, dataset="edge").fingerprint
    assert Stimuli(edges, dataset="edge").fingerprint == before
    assert Stimuli(edges, dataset="edge", preprocess=AsStored(stored=224, size=256)).fingerprint != before
    (edges / "knife" / "knife1.png").rename(edges / "knife" / "knife2.png")
    renamed = Stimuli(edges, dataset="edge").fingerprint
    with (edges / "knife" / "knife2.png").open("ab") as file:
        file.write(b"\0")
    assert len({before, renamed, Stimuli(edges, dataset="edge").fingerprint}) == 3


def test_worker_processes_get_the_same(edges):
    data = Stimuli(edges, dataset="edge")
    copy = pickle.loads(pickle.dumps(data))
    assert copy.fingerprint == data.fingerprint
    assert torch.equal(copy[2][0], data[2][0])


def test_says_what_is_missing(tmp_path, edges):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere with the pictures of the set edge"):
        Stimuli(tmp_path / "nowhere", dataset="edge")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no pictures of the set edge below .*empty"):
        Stimuli(tmp_path / "empty", dataset="edge")
    draw(edges / "sofa" / "sofa1.png")
    with pytest.raises(ValueError, match=r"<category>/<name>\.png, .*got .*sofa/sofa1\.png"):
        Stimuli(edges, dataset="edge")


def test_one_picture_twice_under_a_condition_is_refused(tmp_path):
    for number, condition in ((1, "c30"), (2, "c100"), (3, "c30")):
        draw(tmp_path / f"000{number}_cop_dnn_{condition}_knife_10_n03041632_7380.png")
    with pytest.raises(ValueError, match=r"both 'n03041632_7380' under the condition c30: 0001_cop.* and 0003_cop"):
        Stimuli(tmp_path, dataset="contrast")
