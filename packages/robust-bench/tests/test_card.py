"""A card has all that is needed to repeat a run, and nothing in it is markup by accident."""

import dataclasses
import hashlib
import json
import shlex

import pytest
import torch
from markdown_it import MarkdownIt
from robust_bench import Result, Row, cli
from robust_bench.benchmarks import Sweep
from robust_bench.card import card, command
from robust_bench.result import plain
from robust_bench.runner import Run
from robust_models import create_model

PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")
ODD = "a|b <script>alert(1)</script> *x* [y](z) `t` # - 1."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a run of an untrained network under an odd name lies, beside its weights."""
    out = tmp_path_factory.mktemp("card") / "my runs"
    out.mkdir()
    torch.save(create_model("small_cnn_8").state_dict(), out / "model.pt")
    Run(
        model="small_cnn_8",
        weights=out / "model.pt",
        benchmarks="digits, digits-pgd",
        out=out / "run",
        name=ODD,
        device="cpu",
        batch_size=150,
        seed=3,
        progress=False,
        attack=Sweep(eps=(0.05, 0.1), steps=2, restarts=1),
    )()
    return out


def tables(text):
    """Every table as its lines of cells, under the heading before it; nothing inside may be more than text."""
    found, heading, kind = {}, None, None
    for token in PARSER.parse(text):
        assert token.type != "html_block"
        if token.type == "tr_open":
            found.setdefault(heading, []).append([])
        elif token.type == "inline":
            assert {child.type for child in token.children} <= {"text", "code_inline"}, token.content
            words = "".join(child.content for child in token.children)
            if kind == "heading_open":
                heading = words
            elif kind in ("th_open", "td_open"):
                found[heading][-1].append(words)
        kind = token.type
    return found


def test_everything_that_is_known_stands_in_it(folder):
    text = card(folder / "run")
    result = Result.load(folder / "run" / "result.json")
    found = tables(text)
    assert PARSER.parse(text)[1].children[0].content == ODD
    rows = found["Results on digits"][1:]
    assert [line[0] for line in rows] == ["clean", "PGD-2, Linf 0.05", "PGD-2, Linf 0.1"]
    for line, row in zip(rows, result.rows, strict=True):
        assert line[3:7] == [
            f"{100 * row.value:.1f}", f"{100 * row.low:.1f}–{100 * row.high:.1f}", str(row.correct), "450"
        ]  # fmt: skip
    model = dict(found["Model"])
    assert model["spec"] == "small_cnn_8"
    assert model["sha256"] == hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()
    assert model["parameters"] == str(sum(each.numel() for each in create_model("small_cnn_8").parameters()))
    assert dict(found["Settings"])["seed"] == "3"
    assert dict(found["Versions"]) == {"what": "value", **result.versions}
    assert dict(found["digits"])["images"] == "450"
    prints = {line[0]: line[1:] for line in found["Fingerprints"][1:]}
    assert set(prints) == {"digits", "digits-pgd"}
    for name, (images, data, weights) in prints.items():
        known = json.loads((folder / "run" / "evaluations" / name / "fingerprint.json").read_text(encoding="utf-8"))
        assert (int(images), data, weights) == (known["images"], known["data_sha256"], known["model_sha256"])
    assert "eps 0.05, steps 2, step_size null" in found["Conditions"][2][-1]
    assert result.created in text
    assert "Warnings" not in text


def test_the_command_repeats_the_run(folder):
    (block,) = [token for token in PARSER.parse(card(folder / "run")) if token.type == "fence"]
    words = shlex.split(block.content)
    assert words[:2] == ["robust-bench", "run"]
    again = [str(folder / "again") if word == str(folder / "run") else word for word in words[1:]]
    assert cli.main([*again, "--progress", "false"]) == 0
    first, second = (Result.load(folder / name / "result.json") for name in ("run", "again"))
    assert [dataclasses.replace(row, seconds=0) for row in second.rows] == [
        dataclasses.replace(row, seconds=0) for row in first.rows
    ]
    assert (second.model, second.seed, second.settings["batch_size"]) == (ODD, 3, 150)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pretrained": False, "workers": 0}, "--pretrained false --workers 0"),
        ({"seed": 0, "attack": {"eps": [0.1, 0.2], "steps": 20}}, "--attack.eps '[0.1, 0.2]'"),
        ({"out": "it's here", "name": "-x"}, """--out 'it'"'"'s here' --name=-x"""),
        ({"benchmarks": ["a", "b"], "data": None}, "--benchmarks a,b"),
    ],
    ids=str,
)
def test_commands_quote_and_leave_out_defaults(settings, expected):
    assert command(settings) == f"robust-bench run {expected}"


def test_a_result_of_evaluate_has_a_card_too(result, tmp_path):
    odd = dataclasses.replace(
        result,
        model=" \n",
        benchmark=ODD,
        created="",
        rows=(
            *result.rows,
            Row(benchmark=ODD, condition=ODD, metric="top5_distance", unit="distance", value=2.5, count=3),
        ),
        settings={"data": {ODD: {ODD: ODD, "images": 3}}, ODD: [ODD], "model": ODD},
    )
    odd.save(tmp_path / "result.json")
    text = card(tmp_path)
    found = tables(text)
    assert text.startswith("# A model without a name\n")
    assert found[f"Results on {ODD}"][1] == [ODD, "top-5 distance", "distance", "2.5", "–", "–", "3", "0.0"]
    assert [ODD, ODD] in found[ODD]
    assert len(found["Results on digits"]) == 1 + len(result.rows)
    assert "date unknown" in text
    assert "a call of `robust_bench.evaluate`" in text
    assert "Fingerprints" not in found


def test_what_makes_the_numbers_doubtful_is_said_first(folder, result, tmp_path):
    data = {"a": {"images": 3, "of": 7}, "b": {"images": 5, "skipped": 2, "damaged": ["cannot read <x>"]}, "c": None}
    dataclasses.replace(result, settings={"data": data, "warnings": ["- odd *thing*"]}).save(tmp_path / "result.json")
    (tmp_path / "evaluations").symlink_to(folder / "run" / "evaluations")
    lines = [line for line in card(tmp_path).splitlines() if line.startswith("- ")]
    assert lines == [
        "- \\- odd \\*thing\\*",
        "- a: only 3 of 7 images were evaluated.",
        "- b: 2 images could not be read and were skipped, e.g. cannot read &lt;x&gt;",
    ]


def test_parts_that_are_not_finished_are_named(folder, result, tmp_path):
    result.save(tmp_path / "result.json")
    part = tmp_path / "evaluations" / "imagenet-c" / "fog-3"
    part.mkdir(parents=True)
    known = folder / "run" / "evaluations" / "digits" / "fingerprint.json"
    (part / "fingerprint.json").write_bytes(known.read_bytes())
    assert "- imagenet-c/fog-3 is not finished." in card(tmp_path)


def test_a_folder_without_a_result_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"result\.json"):
        card(tmp_path)


def test_no_default_is_part_of_the_command():
    settings = {
        entry.name: entry.default_factory() if entry.default_factory is not dataclasses.MISSING else entry.default
        for entry in dataclasses.fields(Run)
        if entry.default is not dataclasses.MISSING or entry.default_factory is not dataclasses.MISSING
    }
    nested = {
        name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
        for name, value in settings.items()
    }
    assert command(plain(nested, "settings")) == "robust-bench run"
