"""WebDataset: numbered items, labels in both forms, and errors that name the tar file and the key."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.datasets.class_map import ClassMap
from robust_bench.datasets.tar_file import tar_members
from robust_bench.datasets.webdataset import webdataset
from robust_bench.preprocess import AsStored
from torch.utils.data import DataLoader

SIDE = 12
AS_STORED = AsStored(stored=SIDE)
ANIMALS = ClassMap(labels={"cat": 0, "dog": 1, "owl": 2})


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def picture(seed, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, kind)
    return file.getvalue()


def pack(path, contents):
    """Write a tar file of pairs of names and bytes."""
    with tarfile.open(path, "w") as archive:
        for name, content in contents:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def sample(key, seed, label):
    return [(f"{key}.png", picture(seed)), (f"{key}.cls", f"{label}".encode())]


@pytest.fixture
def root(tmp_path):
    """Three shards of 7 images; number n has the label n % 5."""
    for shard in range(3):
        numbers = range(7 * shard, 7 * shard + 7)
        pack(tmp_path / f"val-{shard}.tar", [pair for n in numbers for pair in sample(f"{n:04d}", n, n % 5)])
    return tmp_path


def opened(root, pattern="", **settings):
    return webdataset(root, pattern, preprocess=AS_STORED, **settings)


def assert_right(images, labels, ids):
    assert labels.tolist() == [number % 5 for number in ids]
    expected = np.stack([pixels(number) for number in ids])
    assert torch.equal(images, torch.from_numpy(expected).permute(0, 3, 1, 2) / 255)


def test_any_image_is_found_by_its_number(root):
    data = opened(root)
    assert (len(data), data.num_classes) == (21, 5)
    for index in (20, 0, 13, 7, 6):
        image, label = data[index]
        assert_right(image[None], torch.tensor([label]), [index])
    assert [data.filename(index) for index in (0, 13)] == ["val-0.tar/0000.png", "val-1.tar/0013.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_read_the_same_after_the_first_image_was_read_here(root, workers):
    data = opened(root)
    assert data[3][1] == 3  # a tar file is open now, which workers must not share
    order = torch.randperm(21, generator=torch.Generator().manual_seed(0)).tolist()
    batches = list(DataLoader(data, batch_sampler=[order[at : at + 4] for at in range(0, 21, 4)], num_workers=workers))
    assert_right(torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches]), order)


def test_a_pickled_copy_reads_the_same_and_carries_no_images(root):
    data = opened(root)
    before = data[5][0]
    content = pickle.dumps(data)
    assert len(content) < sum(file.stat().st_size for file in root.iterdir()) / 10
    again = pickle.loads(content)
    assert torch.equal(again[5][0], before)
    assert again.fingerprint == data.fingerprint


def test_patterns_choose_shards(root):
    assert [opened(root, "val-{1..2}.tar").filename(index) for index in (0, 13)] == [
        "val-1.tar/0007.png",
        "val-2.tar/0020.png",
    ]
    assert len(opened(root / "val-1.tar")) == 7
    assert len(opened(root / "val-[02].tar")) == 14


def test_names_tell_shards_of_the_same_name_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pack(tmp_path / folder / "0.tar", sample("x", 0, 0))
    data = opened(tmp_path, "*/0.tar")
    assert [data.filename(index) for index in range(2)] == ["a/0.tar/x.png", "b/0.tar/x.png"]


def test_labels_are_numbers_or_names_in_text_or_json(tmp_path):
    written = [("cls", "2\n"), ("cls", " 0"), ("json", json.dumps({"label": 1, "width": 3}))]
    pack(
        tmp_path / "n.tar",
        [
            p
            for n, (field, label) in enumerate(written)
            for p in ((f"{n}.png", picture(n)), (f"{n}.{field}", label.encode()))
        ],
    )
    assert [label for _, label in opened(tmp_path / "n.tar")] == [2, 0, 1]
    written = [("cls", "owl\n"), ("json", json.dumps({"label": "dog"}))]
    pack(
        tmp_path / "c.tar",
        [
            p
            for n, (field, label) in enumerate(written)
            for p in ((f"{n}.png", picture(n)), (f"{n}.{field}", label.encode()))
        ],
    )
    found = opened(tmp_path / "c.tar", class_map=ANIMALS)
    assert [label for _, label in found] == [2, 1]
    assert found.num_classes == 3


def test_a_class_map_may_also_change_numbers(tmp_path):
    pack(tmp_path / "x.tar", sample("a", 0, 7))
    found = opened(tmp_path, class_map=ClassMap(labels={"7": 1, "8": 9}))
    assert (found[0][1], found.num_classes) == (1, 10)


def test_fields_are_found_in_any_order_and_case_and_others_are_left_out(tmp_path):
    contents = [
        ("__meta__/x.json", b"no json"), ("a/1.x.txt", b"?"), ("a/1.CLS", b"0"), ("a/1.seg.png", b"?"), ("b.txt", b"?"),
        ("a/1.PNG", picture(3)), ("a/._1.png", b"?"), ("README", b"?"), ("c.json", b"?"),
    ]  # fmt: skip
    pack(tmp_path / "x.tar", contents)
    data = opened(tmp_path)
    assert [data.filename(index) for index in range(len(data))] == ["x.tar/a/1.PNG"]
    assert torch.equal(data[0][0], torch.from_numpy(pixels(3)).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("kind", ["BMP", "PPM", "JPEG", "WEBP"])
def test_images_may_have_several_formats(tmp_path, kind):
    pack(tmp_path / "x.tar", [(f"a.{kind.lower()}", picture(0, kind)), ("a.cls", b"0")])
    with Image.open(io.BytesIO(picture(0, kind))) as same:
        expected = torch.from_numpy(np.array(same.convert("RGB"))).permute(2, 0, 1) / 255
    assert torch.equal(opened(tmp_path)[0][0], expected)


BROKEN = {
    "no label": ([("k.png", picture(0))], r"k has no label: expected k\.cls, or k\.json"),
    "no image": ([("k.cls", b"0")], "k has cls: expected one image, among bmp"),
    "two images": ([*sample("k", 0, 0), ("k.jpg", picture(0, "JPEG"))], "k has png, cls, jpg: expected one image"),
    "the same twice": ([*sample("k", 0, 0), *sample("k", 0, 0)], r"has k\.png twice"),
    "a name as label": (sample("k", 0, "cat"), "the label of .*k is 'cat', no number: give a class map"),
    "an empty label": (sample("k", 0, ""), "the label of .*k is '', no number"),
    "a fraction": (sample("k", 0, "1.5"), "the label of .*k is '1.5', no number"),
    "a negative label": (sample("k", 0, -1), "the label of .*k is -1, but labels count from 0"),
    "no text": ([("k.png", picture(0)), ("k.cls", b"\xff")], r"the label of .*k in \.cls is no text"),
    "json without label": ([("k.png", picture(0)), ("k.json", b"{}")], r'k\.json must have .* "label", got None'),
    "json with true": ([("k.png", picture(0)), ("k.json", b'{"label": true}')], 'under "label", got True'),
    "json of a list": ([("k.png", picture(0)), ("k.json", b"[1]")], 'under "label", got None'),
    "no json": ([("k.png", picture(0)), ("k.json", b"{")], r"k\.json cannot be read"),
    "nothing": ([("k.txt", b"?")], r"no images in .*x\.tar"),
}  # fmt: skip


@pytest.mark.parametrize(("contents", "word"), BROKEN.values(), ids=BROKEN.keys())
def test_errors_name_the_tar_file_and_the_key(tmp_path, contents, word):
    pack(tmp_path / "x.tar", contents)
    with pytest.raises(ValueError, match=rf"(?s)(x\.tar.*)?{word}") as found:
        opened(tmp_path)
    assert "x.tar" in str(found.value)


def test_a_class_outside_of_the_map_is_an_error(tmp_path):
    pack(tmp_path / "x.tar", sample("k", 0, "emu"))
    with pytest.raises(ValueError, match=r"the class 'emu' of .*x\.tar/k is not in the class map"):
        opened(tmp_path, class_map=ANIMALS)


def test_a_damaged_image_is_an_error_with_its_place_and_the_others_are_read(root):
    path = root / "val-1.tar"
    member = next(member for member in tar_members(path) if member.name == "0009.png")
    content = bytearray(path.read_bytes())
    content[member.offset + member.size // 2 : member.offset + member.size] = bytes(member.size - member.size // 2)
    path.write_bytes(bytes(content))
    data = opened(root)
    with pytest.raises(ValueError, match=r"cannot read the image .*val-1\.tar/0009\.png"):
        data[9]
    assert_right(data[10][0][None], torch.tensor([data[10][1]]), [10])


def test_a_truncated_shard_is_noticed_when_it_is_opened(root):
    path = root / "val-2.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"val-2\.tar"):
        opened(root)


def test_the_fingerprint_follows_files_labels_and_treatment(root):
    usual = opened(root).fingerprint
    assert opened(root).fingerprint == usual
    others = {
        opened(root, "val-{0,1}.tar").fingerprint,
        webdataset(root, preprocess=AsStored(stored=SIDE, size=6)).fingerprint,
        opened(root, class_map=ClassMap(labels={str(n): 4 - n for n in range(5)})).fingerprint,
    }
    pack(root / "val-2.tar", [pair for n in range(14, 20) for pair in sample(f"{n:04d}", n, n % 5)])
    others.add(opened(root).fingerprint)
    assert usual not in others
    assert len(others) == 4
