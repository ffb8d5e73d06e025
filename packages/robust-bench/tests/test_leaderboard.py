"""The leaderboard, read by parsers: what shares a column, names as text, files beside it, errors."""

import base64
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_bench import Result, Row
from robust_bench.card import command
from robust_bench.report import curve, slugs, write_report, write_site
from robust_bench.report.columns import groups
from robust_bench.report.direction import lower_is_better
from robust_bench.report.heatmap import CORRUPTION_GROUPS, heat_map
from robust_bench.report.leaderboard import leaderboard

VOID = {"meta", "link", "img", "br", "input"}
ODD_NAMES = [
    "<script>alert(1)</script>",
    "../../x",
    "a' onload='x",
    '"quoted" & <b>bold</b>',
    "</style></script><script>alert(1)//",
    "{{ 7 * 7 }}",
    "🦊 مرحبا \u202egnp.exe",
    "=HYPERLINK(1)",
    "javascript:alert(1)",
    "a\u2028b\nc",
    "CON",
    "index",
    "x" * 5000,
    "",
]


def accuracy(correct, count=1000, *, benchmark="imagenet-val", condition="clean", **settings):
    known = settings or {"kind": "clean"}
    return Row.accuracy(
        benchmark=benchmark, condition=condition, settings=known, correct=correct, count=count, seconds=1.0
    )


def attacked(correct, levels, *, attack="PGD", label="PGD-20", **settings):
    known = {"kind": "attack", "attack": attack, "norm": "Linf", "eps": levels / 255} | settings
    return accuracy(correct, condition=f"{label}, {known['norm']} {levels}/255", **known)


def corrupted(correct, corruption, severity, count=1000, **settings):
    known = {"kind": "corruption", "corruption": corruption, "severity": severity} | settings
    return accuracy(correct, count, benchmark="imagenet-c", condition=f"{corruption} {severity}", **known)


def score(
    metric, value, *, count=1000, benchmark="imagenet-c", condition="15 corruptions", unit="fraction", **settings
):
    interval = {"method": "bootstrap", "resamples": 1000, "seed": 0}
    return Row(
        benchmark=benchmark,
        condition=condition,
        settings={"kind": "score", "interval": interval} | settings,
        metric=metric,
        unit=unit,
        value=value,
        low=value - 0.01,
        high=value + 0.01,
        count=count,
    )


def result(name, *rows, model=None, data=None, **settings):
    known = {"model": {"spec": "timm:resnet50", "parameters": 25_557_032, "multiply_adds": 4_089_184_256}}
    known["model"] = known["model"] if model is None else model
    return Result(model=name, benchmark="some", rows=rows, settings=known | {"data": data or {}} | settings)


def full(name, share, **more):
    """Every kind of row; `share` of 1,000 images are right when clean."""
    rows = [accuracy(round(1000 * share))]
    rows += [attacked(round(1000 * share / 2**levels), levels) for levels in (1, 2, 4, 8)]
    rows += [attacked(round(1000 * share / 20), 4, attack="standard", label="AutoAttack standard")]
    rows += [score("rms_calibration_error", share / 10, benchmark="imagenet-val", condition="clean")]
    rows += [
        corrupted(round(900 * share / severity), name, severity)
        for names in CORRUPTION_GROUPS.values()
        for name in names
        for severity in (1, 2, 3, 4, 5)
    ]
    rows += [score("mean_corruption_error", 1.2 - share)]
    return result(name, *rows, **more)


@pytest.fixture
def runs(tmp_path):
    """Run folders of four models with everything, one with less, and one below a folder of several."""
    every = [
        full("best", 0.9, model={"spec": "timm:resnet50.a", "parameters": 25_557_032, "sha256": "1"}),
        full("good", 0.8, model={"spec": "timm:resnet50.b", "parameters": 25_557_032, "sha256": "2"}),
        full("fair", 0.7, model={"spec": "my.models:build", "parameters": 5_000_000, "multiply_adds": 300_000_000}),
        result("partial", accuracy(750), model={}),
    ]
    for each in every:
        each.save(tmp_path / "runs" / each.model / "result.json")
    full("poor", 0.4, model={"spec": "timm:resnet18", "parameters": 11_689_512}).save(
        tmp_path / "runs" / "several" / "inner" / "result.json"
    )
    return sorted((tmp_path / "runs").iterdir())


class Page(HTMLParser):
    """Collects tags, text and scripts, and checks that every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def pages(out):
    return [Page(out / "index.html"), *(Page(path) for path in sorted((out / "models").glob("*.html")))]


def columns(*results):
    return [(group.title, column.title, *column.about) for group in groups(results) for column in group.columns]


# ---- what shares a column ----

SETTINGS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["attack", "other"]), "steps": st.integers(1, 2)},
    optional={"inner": st.fixed_dictionaries({"loss": st.sampled_from(["dlr", None])}), "eps": st.just(0.1)},
)
ROWS = st.lists(
    st.builds(
        lambda count, condition, settings, metric: (
            accuracy(1, count, condition=condition, **settings)
            if metric == "accuracy"
            else score(metric, 0.5, count=count, benchmark="imagenet-val", condition=condition, **settings)
        ),
        st.integers(2, 3),
        st.sampled_from(["a", "b, Linf 0.1"]),
        SETTINGS,
        st.sampled_from(["accuracy", "aurra", "mean_error"]),
    ),
    max_size=6,
)
DATA = st.fixed_dictionaries(
    {"dataset": st.sampled_from(["imagenet-val", "folder"]), "path": st.sampled_from(["/a", "/b"])},
    optional={"answer": st.sampled_from(["mean", "max"]), "preprocessing": st.sampled_from(["none", {"size": 3}])},
)


@settings(max_examples=50)
@given(st.lists(st.tuples(ROWS, DATA), min_size=1, max_size=3))
def test_rows_share_a_column_exactly_if_their_protocols_are_equal(models):
    results = [
        result(f"model {number}", *rows, data={"imagenet-val": data}) for number, (rows, data) in enumerate(models)
    ]
    expected: dict[str, list[tuple[int, float]]] = {}
    for number, (rows, data) in enumerate(models):
        seen: dict[str, int] = {}
        for row in rows:
            settings = {key: value for key, value in row.settings.items() if key != "interval"}
            folder = data["path"] if data["dataset"] == "folder" else None
            about = [data["dataset"], folder, data.get("answer", "")]
            key = json.dumps([row.metric, row.condition, row.count, settings, about], sort_keys=True)
            seen[key] = seen.get(key, 0) + 1
            expected.setdefault(f"{key} {seen[key]}", []).append((number, row.value))
    found = [
        [(number, row.value) for number, row in enumerate(column.cells) if row is not None]
        for group in groups(results)
        for column in group.columns
    ]
    assert sorted(found) == sorted(expected.values())
    titles = [
        (group.title, group.about, column.title, *column.about) for group in groups(results) for column in group.columns
    ]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({"images_expected": 50_000}, False),
        ({"preprocessing": {"size": 384}}, True),
        ({"path": "/elsewhere"}, True),
        ({"sha256": "other"}, True),
        ({"answer": "the max of the logits"}, False),
        ({"variant": "generated"}, False),
        ({"dataset": "folder", "path": "/elsewhere"}, False),
    ],
)
def test_how_a_model_resizes_and_where_files_lie_are_no_other_protocol(change, shared):
    data = {"dataset": "imagenet-val", "path": "/data", "preprocessing": {"size": 224}, "sha256": "one"}
    two = [result(name, accuracy(5), data={"imagenet-val": data | also}) for name, also in (("a", {}), ("b", change))]
    assert len(columns(*two)) == (1 if shared else 2)


def test_what_was_found_beside_a_score_is_no_protocol():
    two = [result(name, score("loss", 0.5, details={"p": name})) for name in "ab"]
    assert len(columns(*two)) == 1


def test_words_say_what_tells_columns_apart():
    longer = attacked(2, 4, steps=100, attacks={"apgd": {"loss": "ce"}})
    shorter = attacked(2, 4, steps=20, attacks={"apgd": {"loss": "dlr"}})
    names = columns(result("a", shorter), result("b", longer))
    assert names[0][1:3] == names[1][1:3] == ("PGD-20", "Linf, eps 4/255")
    assert names[0][3] == "steps 20, attacks.apgd.loss dlr"


def test_numbers_of_images_are_said_where_they_differ():
    whole, part = accuracy(5, 50_000), accuracy(5, 5_000)
    assert columns(result("a", whole)) == [("imagenet-val", "clean")]
    assert {name[-1] for name in columns(result("a", whole), result("b", part))} == {"50,000 images", "5,000 images"}
    assert groups([result("a", whole)])[0].about == "50,000 images"
    assert groups([result("a", whole, part)])[0].about == ""


def test_attacks_come_after_clean_images_by_eps_and_say_norm_and_eps():
    rows = [score("aurra", 0.5, benchmark="imagenet-val"), attacked(1, 8), attacked(1, 1), attacked(1, 2, norm="L2")]
    names = columns(result("a", *rows, accuracy(5)))
    assert [name[1:] for name in names] == [
        ("clean",), ("PGD-20", "Linf, eps 1/255"), ("PGD-20", "Linf, eps 8/255"), ("PGD-20", "L2, eps 2/255"),
        ("AURRA", "15 corruptions"),
    ]  # fmt: skip


def test_a_corruption_is_one_column_of_its_mean_and_only_if_all_severities_are_there():
    fog = [corrupted(100 * severity, "fog", severity) for severity in (1, 2, 3, 4, 5)]
    snow = [corrupted(10, "snow", severity) for severity in (1, 2, 3, 4)]
    skipped = [corrupted(10, "frost", severity, 1000 - severity) for severity in (1, 2, 3, 4, 5)]
    (group,) = groups([result("a", *fog, *snow, *skipped)])
    assert [column.title for column in group.columns] == ["fog"]
    row = group.columns[0].cells[0]
    assert row.value == pytest.approx(fmean(each.value for each in fog))
    assert row.low is None
    assert group.shown  # there is nothing else


def test_single_corruptions_and_people_are_details():
    rows = [corrupted(100, "fog", severity) for severity in (1, 2, 3, 4, 5)]
    rows += [score("corruption_error", 0.5, corruption="fog"), score("mean_corruption_error", 0.5)]
    rows += [score("error_consistency", 0.5, of="pairs of people"), score("ood_accuracy", 0.5, of="model")]
    rows += [score("loss", 0.5, of={"attack": "PGD"}), corrupted(1, "fog", 6), corrupted(1, "fog", 1, kind="occlusion")]
    main, details = groups([result("a", *rows)])
    assert [column.title for column in main.columns] == ["mCE", "OOD accuracy"]
    assert len(details.columns) == 6
    assert (main.shown, details.shown) == (True, False)
    assert details.about.startswith("in detail")


@pytest.mark.parametrize(
    "metric",
    [
        "mean_error", "corruption_error", "mean_corruption_error", "relative_mean_corruption_error", "flip_probability",
        "mean_flip_probability", "mean_flip_rate", "top5_distance", "mean_top5_distance", "zipf_distance",
        "rms_calibration_error", "mean_absolute_calibration_error", "fpr_at_95_recall", "accuracy_drop",
        "accuracy_difference", "accuracy_fall", "loss",
    ],
)  # fmt: skip
def test_errors_distances_and_flips_are_better_if_lower(metric):
    assert lower_is_better(metric)


@pytest.mark.parametrize(
    "metric", ["accuracy", "top5_accuracy", "aurra", "auroc", "average_precision", "shape_bias", "error_consistency"]
)
def test_other_scores_are_not(metric):
    assert not lower_is_better(metric)


# ---- the order of lines ----


def test_lines_are_sorted_by_the_first_score_and_missing_ones_are_last():
    up = [result(name, accuracy(correct)) for name, correct in (("b", 5), ("a", 900), ("c", 5))]
    none = result("none", accuracy(5, benchmark="other"))
    assert [line.model for line in leaderboard([none, *up]).lines] == ["none", "b", "a", "c"]  # "other" comes first
    assert [line.model for line in leaderboard([*up, none]).lines] == ["a", "b", "c", "none"]
    lower = [result(name, score("mean_corruption_error", value)) for name, value in (("a", 0.9), ("b", 0.4))]
    assert [line.model for line in leaderboard([*lower, none]).lines] == ["b", "a", "none"]


@pytest.mark.parametrize(("value", "shown"), [(0, 0), (7, 7), (True, None), ("7", None), (-1, None), (7.0, None)])
def test_only_counts_are_parameters(value, shown):
    (line,) = leaderboard([result("a", model={"parameters": value})]).lines
    assert line.parameters == shown
    assert line.multiply_adds is None


# ---- several checkpoints ----


def checkpoint(name, spec, *rows, **weights):
    return result(name, *(rows or (accuracy(5),)), model={"spec": spec, **weights})


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        (("timm:resnet50", {"sha256": "1"}), ("timm:resnet50", {"sha256": "2"}), 2),
        (("timm:resnet50", {"sha256": "1"}), ("timm:resnet50", {"sha256": "1", "weights": "copy"}), 0),
        (("timm:resnet50.a1", {"pretrained": True}), ("timm:resnet50.a2", {"pretrained": True}), 2),
        (("timm:resnet50", {"sha256": "1"}), ("timm:resnet18", {"sha256": "2"}), 0),
        (("my.models:one", {"sha256": "1"}), ("my.models:two", {"sha256": "2"}), 0),
        (("my.models:one", {"sha256": "1"}), ("my.models:one", {"sha256": "2"}), 2),
        (("", {"sha256": "1"}), ("", {"sha256": "2"}), 0),
    ],
)
def test_several_checkpoints_of_an_architecture_on_one_set_are_said(first, second, count):
    board = leaderboard([checkpoint(name, spec, **more) for name, (spec, more) in (("a", first), ("b", second))])
    assert [line.checkpoints for line in board.lines] == [count, count]
    assert [choice.count for choice in board.choices] == ([count] if count else [])


def test_checkpoints_on_different_sets_are_no_choice():
    one, other = accuracy(5, benchmark="x"), accuracy(5, benchmark="y")
    board = leaderboard([checkpoint("a", "r", one, sha256="1"), checkpoint("b", "r", other, sha256="2")])
    assert board.choices == ()


def test_the_note_is_on_both_pages(runs, tmp_path):
    write_site(runs, tmp_path / "site")
    words = "chosen among 2 checkpoints on these sets: imagenet-val , imagenet-c"
    assert f"timm:resnet50 : {words} ( best , good )" in Page(tmp_path / "site" / "index.html").text
    assert "Chosen among 2 checkpoints on these sets" in Page(tmp_path / "site" / "models" / "best.html").text
    assert "checkpoints" not in Page(tmp_path / "site" / "models" / "fair.html").text


# ---- names of models and files ----


def test_models_of_one_name_get_their_folders_across_runs(tmp_path):
    places = {"x/a": "robust", "y/a": "robust", "y/b": "robust", "c": "robust (b)", "d": "other"}
    for place, model in places.items():
        result(model, accuracy(5)).save(tmp_path / place / "result.json")
    runs = [tmp_path / "x", tmp_path / "y", tmp_path / "c", tmp_path / "d", tmp_path / "y" / "b", tmp_path / "y"]
    write_site(runs, tmp_path / "site")
    names = {each["model"] for each in document(tmp_path / "site")["models"]}
    assert names == {"robust (x/a)", "robust (y/a)", "robust (y/b)", "robust (b)", "other"}


def test_names_that_are_taken_are_told_apart_again(tmp_path):
    for place, model in {"a": "robust", "b": "robust", "c": "robust (b)"}.items():
        result(model, accuracy(5)).save(tmp_path / place / "result.json")
    write_site([tmp_path], tmp_path / "site")
    names = {each["model"] for each in document(tmp_path / "site")["models"]}
    assert names == {"robust (a)", "robust (b) (b)", "robust (b) (c)"}


@given(st.lists(st.text(max_size=30) | st.sampled_from(ODD_NAMES), unique=True))
def test_file_names_are_safe_and_never_the_same(names):
    found = slugs.slugs(names)
    assert len({slug.casefold() for slug in found}) == len(names)
    for name, slug in zip(names, found, strict=True):
        assert re.fullmatch(r"[a-z0-9]+([._-][a-z0-9]+)*", slug)
        assert len(slug) <= 160
        assert slug.split(".")[0] not in {"index", "con", "nul", "aux", "prn", "com1"}
        assert slugs.slugs([name]) == (slug,)  # it depends on no other model


@given(st.text(min_size=1, max_size=30))
def test_a_file_name_is_no_models_plain_name(name):
    (slug,) = slugs.slugs([name])
    assert slug == name or slugs.slugs([slug, name])[0] != slug


def test_file_names_differ_even_where_hashes_begin_alike(monkeypatch):
    def digest(data):
        return SimpleNamespace(hexdigest=lambda: "0" * 12 + hashlib.sha256(data).hexdigest())

    monkeypatch.setattr(slugs, "hashlib", SimpleNamespace(sha256=digest))
    found = slugs.slugs(["A", "a!", "a?"])
    assert len(set(found)) == 3
    assert found[0] == "a-0000000000"
    with pytest.raises(ValueError, match="twice"):
        slugs.slugs(["a", "a"])


def test_names_are_only_text_everywhere(tmp_path):
    for number, name in enumerate(ODD_NAMES):
        rows = (
            accuracy(5, benchmark=name or "x", condition=name, kind="clean"),
            accuracy(5, benchmark=name or "x", condition=name, kind="attack", norm=name, eps=0.1, attack=name),
            accuracy(5, benchmark=name or "x", condition=name, kind="attack", norm=name, eps=0.2, attack=name),
            accuracy(5, benchmark=name or "x", condition=name, kind="corruption", corruption=name, severity=1),
            score(name or "x", 0.5, benchmark=name or "x", condition=name, unit=name),
        )
        about = {"dataset": name, "path": name, "preprocessing": name, name or "x": name}
        odd = result(name, *rows, model={"spec": name, "sha256": str(number)}, data={name or "x": about})
        known = {**odd.settings, "command": {"model": name, "name": name}, "warnings": [name]}
        odd = dataclasses.replace(odd, versions={name: name}, created=name, benchmark=name, settings=known)
        odd.save(tmp_path / "runs" / str(number) / "result.json")
    out = tmp_path / "deep" / "down" / "site"
    write_site([tmp_path / "runs"], out)

    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    outside = {name for name in written if not name.startswith(("runs/", "deep/down/site/"))}
    assert outside == set()
    assert len(list((out / "models").iterdir())) == len(ODD_NAMES)
    for page in pages(out):
        assert len(page.scripts) == len(page.all("script")) == (1 if page.all("form") else 0)
        assert not page.all("b")
        assert all(not key.startswith("on") for _, attributes in page.tags for key in attributes)
        assert not any((attributes.get("href") or "").startswith("javascript") for attributes in page.all("a"))
    index = pages(out)[0]
    for name in ODD_NAMES:
        assert " ".join(name.split()) in index.text
    assert {each["model"] for each in document(out)["models"]} == set(ODD_NAMES)
    lines = list(csv.DictReader(io.StringIO((out / "leaderboard.csv").read_bytes().decode(), newline="")))
    assert {line["model"] for line in lines} == {f"'{name}" if name.startswith("=") else name for name in ODD_NAMES}


# ---- pages ----


def test_every_link_leads_to_a_page_and_nothing_is_loaded(runs, tmp_path):
    index = write_site(runs, tmp_path / "site")
    assert index == tmp_path / "site" / "index.html"
    for path in (index, *(tmp_path / "site" / "models").iterdir()):
        page = Page(path)
        for tag, attributes in page.tags:
            address = attributes.get("href") or attributes.get("src")
            if address is None or address.startswith("data:"):
                continue
            assert tag == "a"
            target, _, anchor = address.partition("#")
            assert (path.parent / target).resolve().exists()
            assert not anchor or anchor in {attributes.get("id") for _, attributes in page.tags}
        style = re.search(r"<style>(.*?)</style>", path.read_text(encoding="utf-8"), re.DOTALL)[1]
        assert "url(" not in style
        assert "@import" not in style


def test_only_the_pages_own_script_may_run(runs, tmp_path):
    page = Page(write_site(runs, tmp_path / "site"))
    policy = next(tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    model = Page(tmp_path / "site" / "models" / "best.html")
    policy = next(tag["content"] for tag in model.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert "script-src" not in policy


def test_pages_are_accessible(runs, tmp_path):
    write_site(runs, tmp_path / "site")
    for page in pages(tmp_path / "site"):
        assert page.all("html") == [{"lang": "en"}]
        assert len(page.all("h1")) == 1
        assert len(page.all("table")) == len(page.all("caption"))
        assert all(tag.get("scope") in ("row", "col", "rowgroup", "colgroup") for tag in page.all("th"))
        ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
        assert len(ids) == len(set(ids))
        for _, attributes in page.tags:
            if "aria-labelledby" in attributes:
                assert attributes["aria-labelledby"] in ids
            assert attributes.get("aria-label") != ""
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_table_holds_numbers_intervals_sizes_and_dashes(runs, tmp_path):
    text = Page(write_site(runs, tmp_path / "site")).text
    for part in ("90.0", "88.0–91.8", "25.6 M", "300 M", "Linf, eps 4/255", "AutoAttack standard", "lower is better"):
        assert part in text
    assert text.count("not known") == 2 + 3  # both sizes of one model, multiply-adds of three others
    shown = [attributes for attributes in Page(tmp_path / "site" / "index.html").all("th") if "aria-sort" in attributes]
    assert [attributes["aria-sort"] for attributes in shown] == ["descending"]


def test_the_page_of_a_model_has_map_curve_scores_and_card(runs, tmp_path):
    write_site(runs, tmp_path / "site")
    page = Page(tmp_path / "site" / "models" / "best.html")
    for part in ("Accuracy over eps in Linf", "Accuracy under corruption", "gaussian noise", "weather", "Result card"):
        assert part in page.text
    assert len([tag for tag in page.all("svg") if tag.get("role") == "img"]) == 1
    assert "mCE, %" in page.text
    assert "Robustness leaderboard" in page.text


def test_files_that_were_resized_for_a_model_are_marked(tmp_path):
    how = {"stored": 224, "size": 384, "steps": "Resize(384 from 224, bilinear, antialiased)"}
    for name, size in (("a", 384), ("b", 224)):
        data = {"imagenet-c": {"preprocessing": how | {"size": size}}}
        row = score("mean_corruption_error", 0.5)
        result(name, row, accuracy(5), data=data).save(tmp_path / name / "result.json")
    write_site([tmp_path / "a", tmp_path / "b"], tmp_path / "site")
    index, first, second = pages(tmp_path / "site")
    assert index.text.count("50.0†") == 1
    assert "resized for this model: Resize(384 from 224, bilinear, antialiased)" in first.text
    assert "resized for this model" not in second.text


def test_figures_are_on_the_pages_of_their_models(tmp_path):
    for name in "ab":
        result(name, accuracy(5)).save(tmp_path / name / "result.json")
    (tmp_path / "a" / "figures").mkdir()
    (tmp_path / "a" / "figures" / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    entry = {"file": "a.svg", "title": "A disc", "caption": "Round.", "alt": "A disc"}
    index = {"format": "robust-figures/1", "figures": [entry]}
    (tmp_path / "a" / "figures" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    write_site([tmp_path / "a", tmp_path / "b"], tmp_path / "site")
    _, first, second = pages(tmp_path / "site")
    assert [tag["alt"] for tag in first.all("img")] == ["A disc"]
    assert not second.all("img")


def test_no_rows_are_a_page_all_the_same(tmp_path):
    result("empty").save(tmp_path / "a" / "result.json")
    write_site([tmp_path / "a"], tmp_path / "site")
    assert "empty" in pages(tmp_path / "site")[0].text
    assert "holds no rows" in pages(tmp_path / "site")[1].text


# ---- the same numbers as files ----


def document(out):
    return json.loads((out / "leaderboard.json").read_text(encoding="utf-8"))


def test_both_files_have_the_numbers_of_the_results(runs, tmp_path):
    write_site(runs, tmp_path / "site")
    found = document(tmp_path / "site")
    assert [model["model"] for model in found["models"]] == ["best", "good", "partial", "fair", "poor"]
    best = found["models"][0]
    assert (best["page"], best["parameters"], best["multiply_adds"]) == ("models/best.html", 25_557_032, None)
    values = {
        (model["model"], found["columns"][each["column"]]["title"]): (each["value"], each["low"], each["high"])
        for model in found["models"]
        for each in model["scores"]
    }
    row = full("best", 0.9).rows[0]
    assert values["best", "clean"] == (row.value, row.low, row.high)
    assert values["best", "PGD-20 – Linf, eps 1/255"][0] == 0.45
    assert values["fair", "mCE – 15 corruptions"][0] == pytest.approx(0.5)
    assert values["partial", "clean"][0] == 0.75
    column = next(each for each in found["columns"] if each["metric"] == "mean_corruption_error")
    assert column["lower_is_better"]
    assert column["images"] == 1000

    lines = csv.DictReader(io.StringIO((tmp_path / "site" / "leaderboard.csv").read_text(encoding="utf-8")))
    read = {(line["model"], line["title"]): float(line["value"]) for line in lines}
    assert read == {key: value for key, (value, _, _) in values.items()}


# ---- the map ----


def test_the_map_is_in_the_published_order_with_means():
    names = [name for names in CORRUPTION_GROUPS.values() for name in names]
    rows = [corrupted(10 * place + s, name, s) for place, name in enumerate(names) for s in (1, 2, 3, 4, 5)]
    rows += [corrupted(7, "my_fog", 2)]
    found = heat_map([accuracy(5), *reversed(rows)])
    assert [group for group, _ in found.blocks] == [*CORRUPTION_GROUPS, "other"]
    lines = [line for _, each in found.blocks for line in each]
    assert [line.title for line in lines] == [name.replace("_", " ") for name in (*names, "my_fog")]
    for place, line in enumerate(lines[:-1]):
        assert [row.correct for row in line.cells] == [10 * place + s for s in (1, 2, 3, 4, 5)]
        assert line.mean == pytest.approx((10 * place + 3) / 1000)
    assert [row is None for row in lines[-1].cells] == [True, False, True, True, True]
    assert lines[-1].mean is None
    assert heat_map([accuracy(5)]) is None


def test_other_constants_are_another_line_of_the_map():
    rows = [corrupted(5, "shot_noise", 1, preset=preset) for preset in ("small_images", "imagenet")]
    ((_, lines),) = heat_map(rows).blocks
    assert [line.title for line in lines] == ["shot noise (preset small_images)", "shot noise (preset imagenet)"]


# ---- the curve ----


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1000)), min_size=1, unique_by=lambda each: each[0]))
def test_the_curve_is_a_linear_map_of_eps_and_accuracy(points):
    found = curve.curves([accuracy(900), *(attacked(correct, levels) for levels, correct in points)])
    if len(points) < 2:
        assert found == ()
        return
    (only,) = found
    (series,) = only.series
    expected = {0: 900} | dict(points)
    largest = max(expected)
    assert len(series.points) == len(expected)
    for point, levels in zip(series.points, sorted(expected), strict=True):
        across = (point.x - curve.LEFT) / (curve.WIDTH - curve.LEFT - curve.RIGHT)
        assert across == pytest.approx(levels / largest)
        up = (curve.HEIGHT - curve.BOTTOM - point.y) / (curve.HEIGHT - curve.TOP - curve.BOTTOM)
        assert up == pytest.approx(expected[levels] / 1000)
        assert curve.TOP <= point.high <= point.y <= point.low <= curve.HEIGHT - curve.BOTTOM
    assert only.eps[-1][0] == pytest.approx(curve.WIDTH - curve.RIGHT)
    assert all(after[0] - before[0] >= 44 for before, after in itertools.pairwise(only.eps))
    assert len(series.band.split()) == 2 * len(series.points)


def test_every_norm_has_a_curve_and_every_attack_a_line():
    rows = [accuracy(900), *(attacked(500 - levels, levels) for levels in (1, 2, 4))]
    rows += [attacked(100, 4, attack="standard", label="AutoAttack standard")]
    rows += [attacked(300 - levels, levels, norm="L2") for levels in (10, 20)]
    rows += [attacked(300, 1, norm="L1"), score("aurra", 0.5)]
    linf, l2 = curve.curves(rows)
    assert [(series.title, series.joined, len(series.points)) for series in linf.series] == [
        ("PGD-20", True, 4), ("AutoAttack standard", False, 1),
    ]  # fmt: skip
    assert l2.norm == "L2"
    assert "AutoAttack standard" in linf.alt
    without_clean = curve.curves(rows[1:])[0].series[0]
    assert len(without_clean.points) == 3


# ---- the card ----


def test_the_card_has_the_command_hashes_versions_and_warnings(tmp_path):
    asked = {"model": "timm:resnet18", "benchmarks": ["digits"], "out": "my runs/a", "name": 'it\'s -- "x"', "seed": 3}
    known = {"command": asked, "warnings": ["a warning"], "batch_size": 64}
    data = {"digits": {"preprocessing": {"steps": "Resize(256)"}, "sha256": "5a7a"}}
    about = {"spec": "timm:resnet18", "sha256": "abcdef", "parameters": 1234567}
    one = dataclasses.replace(result("m", accuracy(5), model=about, data=data, **known), versions={"torch": "2.9"})
    one.save(tmp_path / "run" / "result.json")
    fingerprint = {
        "format": "robust-shards/1",
        "images": 450,
        "shard_size": 512,
        "data_sha256": "d1",
        "model_sha256": "m1",
    }
    folder = tmp_path / "run" / "evaluations" / "digits"
    folder.mkdir(parents=True)
    (folder / "fingerprint.json").write_text(json.dumps(fingerprint), encoding="utf-8")
    write_site([tmp_path / "run"], tmp_path / "site")

    path = tmp_path / "site" / "models" / "m.html"
    text = Page(path).text
    for part in ("abcdef", "1,234,567", "torch 2.9", "Resize(256)", "5a7a", "a warning", "sha256 of the model m1"):
        assert part in text
    assert "digits 450 images, sha256 d1" in text
    shown = re.search(r'class="command".*?<code>(.*?)</code>', path.read_text(encoding="utf-8"), re.DOTALL)[1]
    shown = shown.replace("&#39;", "'").replace("&#34;", '"').replace("\\\n", " ")
    assert shlex.split(shown) == shlex.split(command(asked))


def test_a_result_of_a_program_says_so(tmp_path):
    result("m", accuracy(5)).save(tmp_path / "run" / "result.json")
    write_site([tmp_path / "run"], tmp_path / "site")
    assert "robust_bench.evaluate" in pages(tmp_path / "site")[1].text


# ---- the folder ----


def test_pages_of_models_that_are_gone_are_removed_and_nothing_else(runs, tmp_path):
    out = tmp_path / "site"
    write_site(runs, out)
    (out / "models" / "mine.html").write_text("mine", encoding="utf-8")
    (out / "notes.html").write_text("mine", encoding="utf-8")
    listed = document(out)
    listed["models"].append({"page": "models/../notes.html"})
    (out / "leaderboard.json").write_text(json.dumps(listed), encoding="utf-8")
    write_site(runs[:2], out)
    assert {path.name for path in (out / "models").iterdir()} == {"best.html", "fair.html", "mine.html"}
    assert (out / "notes.html").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', '{"format": "robust-leaderboard/1", "models": 3}'])
def test_a_foreign_file_of_that_name_is_replaced(runs, tmp_path, text):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "leaderboard.json").write_text(text, encoding="utf-8")
    write_site(runs, tmp_path / "site")
    assert len(document(tmp_path / "site")["models"]) == 5


def test_what_is_wrong_is_said_before_anything_is_written(runs, tmp_path):
    with pytest.raises(ValueError, match="at least one run folder"):
        write_site([], tmp_path / "site")
    with pytest.raises(FileNotFoundError, match="no run folder"):
        write_site([*runs, tmp_path / "none"], tmp_path / "site")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no results in"):
        write_site([*runs, tmp_path / "empty"], tmp_path / "site")
    assert not (tmp_path / "site").exists()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(NotADirectoryError):
        write_site(runs, tmp_path / "file")
    (runs[0] / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"result\.json"):
        write_site(runs, tmp_path / "site")


def test_the_page_of_one_run_folder_is_as_before(runs):
    page = Page(write_report(runs[0]))
    assert not page.all("script")
    assert math.isclose(0.9, full("best", 0.9).rows[0].value)
    assert "best" in page.text
