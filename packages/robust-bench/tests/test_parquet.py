"""All records of a run in one Parquet file, equal to the lines that they come from."""

import sys
import tracemalloc

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import compute, parquet
from robust_attacks import FGSM, Linf
from robust_bench import Result, Row, evaluate
from robust_bench import parquet as ours
from robust_bench.conditions import Attacked, Clean
from robust_bench.kept import kept
from robust_bench.parquet import write_records
from robust_bench.records import Records
from robust_bench.shards import EVALUATION, Shards


def keep(run, name, images, *, names=False, broken_by=False, **more):
    """A part as the engine leaves it, with two conditions, of random records."""
    generator = torch.Generator().manual_seed(images)
    conditions = [{"kind": "clean"}, {"kind": "other"}]
    shards = Shards(
        folder=run / "evaluations" / name,
        fingerprint={"data": {}, "data_sha256": "d", "model_sha256": "m", "conditions": conditions},
        images=images,
        size=128,
    )
    for shard in range(shards.count):
        ids = list(shards.ids(shard))
        records = [
            Records(
                predictions=torch.randint(9, (len(ids),), generator=generator),
                confidences=torch.rand(len(ids), generator=generator),
                right=torch.rand(len(ids), generator=generator) < 0.5,
                seconds=0.5,
                broken_by=tuple(None if id_ % 3 else "apgd" for id_ in ids) if broken_by and number else None,
                more={column: torch.rand(len(ids), generator=generator) for column in more} if number else {},
            )
            for number in range(2)
        ]
        shards.write(
            shard, ids, [id_ % 9 for id_ in ids], records, names=[f"c/{i}.png" for i in ids] if names else None
        )
    shards.merge()
    rows = [
        Row.accuracy(benchmark=name, condition=label, settings=known, correct=0, count=images, seconds=0.0)
        for label, known in zip(("clean", "other"), conditions, strict=True)
    ]
    Result(model="m", benchmark=name, rows=tuple(rows)).save(shards.folder / EVALUATION)


def lines(run):
    """Every record of a run, one after another."""
    for name, part in kept(run).items():
        for seen in part.records():
            for number, row in enumerate(part.rows):
                yield {
                    "part": name,
                    "id": seen.id,
                    "name": seen.name,
                    "label": seen.label,
                    "number": number,
                    "condition": row.condition,
                    "prediction": seen.predictions[number],
                    "confidence": float(np.float32(seen.confidences[number])),
                    "right": seen.right[number],
                    "broken_by": seen.broken_by[number],
                    **seen.more[number],
                }


def test_all_parts_come_back_with_their_further_columns(tmp_path):
    keep(tmp_path, "plain", 70)
    keep(tmp_path, "imagenet-c/fog-3", 300, names=True, loss=True)
    keep(tmp_path, "suite", 10, broken_by=True, top5=True)
    table = parquet.read_table(write_records(tmp_path, tmp_path / "deep" / "records.parquet"))
    further = {"loss": None, "top5": None}
    assert table.to_pylist() == [further | line for line in lines(tmp_path)]
    assert table.num_rows == 2 * (70 + 300 + 10)
    assert set(table.column("part").unique().to_pylist()) == {"plain", "imagenet-c/fog-3", "suite"}
    assert table.filter(compute.is_valid(table.column("broken_by"))).num_rows == 4
    assert table.schema.field("right").type == pyarrow.bool_()


def test_what_evaluate_keeps_is_what_the_file_has(tmp_path, model, grey):
    conditions = (Clean(), Attacked(attack=FGSM(threat=Linf(eps=0.1))))
    result = evaluate(model, grey, conditions=conditions, out=tmp_path / "evaluations" / "grey", shard_size=8)
    table = parquet.read_table(write_records(tmp_path, tmp_path / "records.parquet"))
    assert table.to_pylist() == list(lines(tmp_path))
    for number, row in enumerate(result.rows):
        mine = table.filter(compute.equal(table.column("number"), number))
        assert sum(mine.column("right").to_pylist()) == row.correct
        assert set(mine.column("condition").to_pylist()) == {row.condition}


def test_row_groups_follow_one_another(tmp_path, monkeypatch):
    keep(tmp_path, "a", 130)
    keep(tmp_path, "b", 20)
    monkeypatch.setattr(ours, "_ROWS", 64)
    file = parquet.ParquetFile(write_records(tmp_path, tmp_path / "records.parquet"))
    groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    assert groups == [64, 64, 64, 64, 44]
    assert file.read().to_pylist() == list(lines(tmp_path))


def test_memory_does_not_grow_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "_ROWS", 128)
    peaks = []
    for images in (300, 2400):
        keep(tmp_path / str(images), "a", images)
        write_records(tmp_path / str(images), tmp_path / "warm.parquet")
        tracemalloc.start()
        write_records(tmp_path / str(images), tmp_path / "records.parquet")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_an_unfinished_part_is_an_error_that_leaves_the_old_file(tmp_path):
    keep(tmp_path, "a", 20)
    out = write_records(tmp_path, tmp_path / "records.parquet")
    before = out.read_bytes()
    keep(tmp_path, "b", 20)
    (tmp_path / "evaluations" / "b" / "records.jsonl.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"'b'.*not finished.*merge"):
        write_records(tmp_path, out)
    assert out.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["records.parquet"]


def test_a_damaged_part_is_an_error_that_leaves_nothing(tmp_path):
    keep(tmp_path, "a", 2000)
    file = tmp_path / "evaluations" / "a" / "records.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"records\.jsonl\.gz cannot be read"):
        write_records(tmp_path, tmp_path / "records.parquet")
    assert not list(tmp_path.glob("*.parquet"))
    assert not list(tmp_path.glob(".*"))


def test_a_column_of_a_taken_name_is_an_error(tmp_path):
    keep(tmp_path, "a", 5, label=True)
    with pytest.raises(ValueError, match="'label'"):
        write_records(tmp_path, tmp_path / "records.parquet")


def test_a_folder_without_evaluations_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no evaluations"):
        write_records(tmp_path, tmp_path / "records.parquet")


def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'robust-bench\[parquet\]'"):
        write_records(tmp_path, tmp_path / "records.parquet")
