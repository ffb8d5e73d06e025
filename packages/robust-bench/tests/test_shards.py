"""Shards: what a file holds, what counts as the same evaluation, what a damaged file says."""

import gzip
import json

import pytest
import torch
from robust_bench.records import Records, Seen, read_records
from robust_bench.shards import FINGERPRINT, RECORDS, Shards


def shards(folder, **changes):
    settings = {"fingerprint": {"seed": 0, "data": {"name": "grey"}, "eps": [0.1, 0.2]}, "images": 10, "size": 4}
    settings |= changes
    return Shards(folder=folder, **settings)


def records(count, first=0, broken_by=None):
    numbers = torch.arange(first, first + count)
    return Records(
        predictions=numbers % 3, confidences=numbers / 100, right=numbers % 2 == 0, seconds=0.5, broken_by=broken_by
    )


def write(kept, shard):
    ids = kept.ids(shard)
    stages = tuple("square" if number % 2 else None for number in ids)
    seen = [records(len(ids), ids[0]), records(len(ids), ids[0], stages)]
    kept.write(shard, ids, [number % 5 for number in ids], seen)


def test_shards_divide_the_images_without_rest_and_without_overlap(tmp_path):
    kept = shards(tmp_path)
    assert [list(kept.ids(shard)) for shard in range(kept.count)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_what_is_written_is_read_again(tmp_path):
    kept = shards(tmp_path / "run")
    assert kept.missing() == [0, 1, 2]
    for shard in (2, 0, 1):
        write(kept, shard)
    assert kept.missing() == []
    assert [(each.shard, each.images, each.correct, each.seconds) for each in kept.summaries()] == [
        (0, 4, (2, 2), (0.5, 0.5)), (1, 4, (2, 2), (0.5, 0.5)), (2, 2, (1, 1), (0.5, 0.5)),
    ]  # fmt: skip
    found = list(read_records(kept.merge()))
    assert [seen.id for seen in found] == list(range(10))
    assert found[7] == Seen(
        id=7,
        label=2,
        predictions=(1, 1),
        confidences=(0.07, 0.07),
        right=(False, False),
        broken_by=(None, "square"),
        more=({}, {}),
    )


def test_an_unfinished_evaluation_is_not_merged(tmp_path):
    kept = shards(tmp_path)
    write(kept, 0)
    with pytest.raises(ValueError, match="has 1 of 3 shards, shard 1 is missing: run the evaluation again"):
        kept.merge()
    assert not (tmp_path / RECORDS).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": {"seed": 1, "data": {"name": "grey"}}}, "seed was 0, is 1"),
        ({"fingerprint": {"seed": 0, "data": {"name": "grün"}}}, 'data.name was "grey", is "grün"'),
        ({"fingerprint": {"seed": 0}}, 'data was {"name": "grey"}, is null'),
        ({"fingerprint": {"eps": [0.1, 0.3]}}, "eps.1 was 0.2, is 0.3"),
        ({"fingerprint": {"eps": [0.1]}}, "eps was [0.1, 0.2], is [0.1]"),
        ({"images": 11}, "images was 10, is 11"),
        ({"size": 5}, "shard_size was 4, is 5"),
    ],
)
def test_another_evaluation_is_refused_with_both_values(tmp_path, changes, message):
    kept = shards(tmp_path)
    kept.check()
    write(kept, 0)
    kept.check()
    with pytest.raises(ValueError, match="holds another evaluation") as refusal:
        shards(tmp_path, **changes).check()
    assert message in str(refusal.value)


def test_two_processes_that_begin_at_once_do_not_mix(tmp_path):
    one, other = shards(tmp_path), shards(tmp_path, fingerprint={"seed": 1})
    one.check()
    other.check()
    write(one, 0)
    with pytest.raises(ValueError, match="seed was 0, is 1"):
        write(other, 1)
    assert one.finished() == {0}


def test_shards_of_nobody_are_refused(tmp_path):
    kept = shards(tmp_path)
    write(kept, 0)
    (tmp_path / FINGERPRINT).unlink()
    with pytest.raises(ValueError, match=r"has shards but no fingerprint\.json"):
        kept.check()
    with pytest.raises(ValueError, match=r"has shards but no fingerprint\.json"):
        write(kept, 1)


def test_a_foreign_file_among_the_shards_does_not_count(tmp_path):
    kept = shards(tmp_path)
    write(kept, 0)
    (tmp_path / "shards" / "000001 copy.jsonl.gz").touch()
    assert kept.missing() == [1, 2]


def test_the_size_of_shards_that_are_no_files_may_change(tmp_path):
    Shards(folder=tmp_path, fingerprint={"seed": 0}, images=9, size=3, fixed_size=False).begin()
    Shards(folder=tmp_path, fingerprint={"seed": 0}, images=9, size=4, fixed_size=False).begin()
    with pytest.raises(ValueError, match="holds another copy: seed was 0, is 1"):
        Shards(folder=tmp_path, fingerprint={"seed": 1}, images=9, size=4, what="copy", fixed_size=False).check()


def test_a_folder_is_made_when_something_is_finished(tmp_path):
    kept = shards(tmp_path / "run")
    kept.check()
    assert not (tmp_path / "run").exists()
    write(kept, 0)
    assert Shards.found(tmp_path / "run") == kept


def test_no_evaluation_and_a_foreign_one_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no evaluation in"):
        Shards.found(tmp_path)
    (tmp_path / FINGERPRINT).write_text('{"format": "robust-shards/9"}')
    with pytest.raises(ValueError, match="is not of the format robust-shards/1"):
        Shards.found(tmp_path)
    (tmp_path / FINGERPRINT).write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        shards(tmp_path).check()


def test_a_cut_file_is_named(tmp_path):
    kept = shards(tmp_path)
    write(kept, 1)
    file = tmp_path / "shards" / "000001.jsonl.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:20])
    with pytest.raises(ValueError, match=r"000001\.jsonl\.gz is damaged .*remove it"):
        kept.summaries()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"000001\.jsonl\.gz cannot be read as records"):
        list(read_records(file))
    file.write_bytes(gzip.compress(json.dumps({"id": 0}).encode()))
    with pytest.raises(ValueError, match="cannot be read as records"):
        list(read_records(file))


def test_no_records_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no records"):
        next(read_records(tmp_path / RECORDS))


def test_a_thousand_shards_are_looked_through_without_reading_them(tmp_path, monkeypatch):
    kept = shards(tmp_path, images=1000, size=1)
    for shard in range(1000):
        if shard != 500:
            (tmp_path / "shards").mkdir(exist_ok=True)
            (tmp_path / "shards" / f"{shard:06d}.jsonl.gz").touch()
    (tmp_path / "shards" / ".000500.jsonl.gz.ab.tmp").touch()  # left by a killed process
    monkeypatch.setattr(gzip, "open", None)
    assert kept.missing() == [500]
