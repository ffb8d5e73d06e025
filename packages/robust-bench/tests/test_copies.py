"""The files of a copy."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from robust_bench.copies import ABOUT, FORMAT, KEPT, Copies, check_place, copied_names, encoded, stored_size
from robust_bench.shards import FINGERPRINT, Shards


def test_files_hold_what_they_were_given():
    levels = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = Image.open(io.BytesIO(encoded(levels, "png")))
    assert (picture.mode, picture.size) == ("RGB", (7, 5))
    assert np.array_equal(np.asarray(picture), levels.permute(1, 2, 0).numpy())
    values = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.from_numpy(np.load(io.BytesIO(encoded(values, "npy")))), values)


def test_names_that_would_meet_are_refused():
    assert copied_names(["a/1.JPEG", "a/2.tar.png", "b/1.png"], "npy") == ["a/1.npy", "a/2.tar.npy", "b/1.npy"]
    with pytest.raises(ValueError, match=r"of a/1.jpg and a/1.png would both be a/1.png: rename"):
        copied_names(["a/1.jpg", "a/1.png"], "png")


def test_a_copy_gets_a_place_of_its_own(tmp_path):
    source = tmp_path / "data" / "val"
    source.mkdir(parents=True)
    for out in (source, source / "copy", tmp_path / "data", source / ".." / "val"):
        with pytest.raises(ValueError, match="holds the other"):
            check_place(source, out)
    out = tmp_path / "out"
    check_place(source, out)
    out.mkdir()
    check_place(source, out)
    (out / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds other files, such as notes.txt: choose a new or an empty folder"):
        check_place(source, out)
    (out / KEPT).mkdir()
    with pytest.raises(ValueError, match=r"such as notes\.txt"):
        check_place(source, out)
    (out / "notes.txt").unlink()
    check_place(source, out)  # as another process leaves it that begins just now
    (out / "notes.txt").touch()
    (out / KEPT / FINGERPRINT).touch()
    check_place(source, out)


def test_the_size_of_a_copy(tmp_path):
    assert stored_size(tmp_path) is None
    about = {"format": FORMAT, "data": {"preprocessing": {"size": 32}}}
    for content, size in (({"format": "another"}, None), ([], None), (about, 32)):
        (tmp_path / ABOUT).write_text(json.dumps(content), encoding="utf-8")
        assert stored_size(tmp_path) == size
    for damaged in ("{", json.dumps({"format": FORMAT})):
        (tmp_path / ABOUT).write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match=r"perturb.json is damaged"):
            stored_size(tmp_path)


def test_a_shard_is_done_when_its_images_are_there(tmp_path):
    shards = Shards(folder=tmp_path / KEPT, fingerprint={}, images=5, size=2)
    copies = Copies(folder=tmp_path, names=[f"a/{number}.png" for number in range(5)], form="png", shards=shards)
    assert copies.missing() == {0, 1, 2}
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    copies.write([0, 1], images)
    assert copies.missing() == {0, 1, 2}  # nothing is known of them
    shards.write(0, [0, 1], [0, 0], [])
    shards.write(2, [4], [0], [])
    assert copies.missing() == {1, 2}
    copies.write([4], images[:1])
    assert copies.missing() == {1}
    (tmp_path / "a" / "1.png").unlink()
    assert copies.missing() == {0, 1}


def test_what_killed_processes_left_is_swept_away(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".1.png.12ab34cd.tmp").touch()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / KEPT / "suites").mkdir(parents=True)
    (tmp_path / KEPT / "suites" / "0.pt").touch()
    shards = Shards(folder=tmp_path / KEPT, fingerprint={}, images=1, size=1)
    copies = Copies(folder=tmp_path, names=["a/1.png"], form="png", shards=shards)
    copies.finish([{"id": 0}, {"id": 1}], {"seed": 3})
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["1.png"]
    assert not list((tmp_path / KEPT).iterdir())
    assert (tmp_path / "images.jsonl").read_text() == '{"id": 0}\n{"id": 1}\n'
    assert json.loads((tmp_path / ABOUT).read_text()) == {"format": FORMAT, "seed": 3}
