"""The report page, read by a parser: content, escaping, self-containedness, errors."""

import base64
import dataclasses
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from robust_bench import Result
from robust_bench.report import RunFolder, write_report

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="40" height="30" fill="#48c"/></svg>'
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Collects tags and text, and checks that every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run(tmp_path, result):
    """A run folder of two models with two figures."""
    folder = tmp_path / "demo"
    dataclasses.replace(result, model="ordinary").save(folder / "ordinary" / "result.json")
    dataclasses.replace(result, model="robust").save(folder / "robust" / "result.json")
    figures(folder, "accuracy.svg", "boundary.png")
    return folder


def figures(folder, *names, **changes):
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    entries = []
    for name in names:
        path = folder / "figures" / name
        path.write_bytes(PNG if name.endswith("png") else SVG.encode())
        entries.append({"file": name, "title": f"Title of {name}", "caption": "A caption.", "alt": f"Alt of {name}"})
    index = {"format": "robust-figures/1", "figures": entries} | changes
    (folder / "figures" / "index.json").write_text(json.dumps(index), encoding="utf-8")


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_holds_tables_figures_and_settings(run):
    path = write_report(run)
    assert path == run / "report" / "index.html"
    page = read(path)
    assert [tag for tag, _ in page.tags].count("h1") == 1
    for part in ("ordinary", "robust", "PGD in Linf, 20 steps, 3 restarts", "eps 0.1", "contrast", "98.0", "96.2–99.1"):
        assert part in page.text
    for part in ("A caption.", "Title of accuracy.svg", "torch", "2.14.1", "7"):
        assert part in page.text
    assert page.text.count("54.4") == 2  # under the attack, both models


def test_one_result_needs_no_sub_folder(tmp_path, result):
    result.save(tmp_path / "result.json")
    page = read(write_report(tmp_path, tmp_path / "elsewhere"))
    assert "small_cnn_8" in page.text
    assert (tmp_path / "elsewhere" / "index.html").is_file()
    assert not page.all("img")


def test_the_page_is_accessible(run):
    page = read(write_report(run))
    assert page.all("html") == [{"lang": "en"}]
    assert [attributes["alt"] for attributes in page.all("img")] == ["Alt of accuracy.svg", "Alt of boundary.png"]
    assert len(page.all("table")) == len(page.all("caption")) == 2
    assert all(attributes.get("scope") in ("row", "col", "rowgroup") for attributes in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_nothing_is_loaded_from_anywhere(run):
    path = write_report(run)
    page = read(path)
    assert not page.all("script")
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), (tag, address)
    style = re.search(r"<style>(.*)</style>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_figures_are_inside_byte_for_byte(run):
    sources = [attributes["src"] for attributes in read(write_report(run)).all("img")]
    assert sources[0].startswith("data:image/svg+xml;base64,")
    assert base64.b64decode(sources[0].partition(",")[2]) == SVG.encode()
    assert base64.b64decode(sources[1].partition(",")[2]) == PNG


@pytest.mark.parametrize(
    "name", ['<script>alert("x")</script>', "a' onload='x", "</style><b>", "{{ 7 * 7 }}", "مرحبا", "&amp;"]
)
def test_names_are_only_text(tmp_path, result, name):
    odd = dataclasses.replace(
        result,
        model=name,
        rows=tuple(dataclasses.replace(row, benchmark=name, condition=f"{name} 1") for row in result.rows),
        versions={name: name},
        settings={"data": {name: {"dataset": name}}},
    )
    odd.save(tmp_path / "result.json")
    figures(tmp_path, "a.svg")
    index = tmp_path / "figures" / "index.json"
    entry = json.loads(index.read_text())["figures"][0] | {"title": name, "caption": name, "alt": name}
    figures(tmp_path, "a.svg", figures=[entry])
    page = read(write_report(tmp_path))
    assert not page.all("script")
    assert not page.all("b")
    assert all(not key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.text.count(name) >= 5
    assert page.all("img")[0]["alt"] == name


def test_what_was_not_measured_is_said_and_never_zero(run, result):
    dataclasses.replace(result, model="partial", rows=result.rows[:2] + result.rows[3:-1]).save(
        run / "partial" / "result.json"
    )
    page = read(write_report(run))
    assert page.text.count("not measured") == 3  # one eps, one severity and the mean over severities


def test_other_data_never_share_a_table(run, result):
    other = {"data": {"digits": {"dataset": "folder", "path": "cats"}}}
    dataclasses.replace(result, model="cats", settings=other).save(run / "z" / "result.json")
    page = read(write_report(run))
    assert len(page.all("table")) == 4
    assert "folder cats, 450 images" in page.text


def test_attacks_with_other_settings_never_share_a_table(run, result):
    rows = [
        dataclasses.replace(row, settings={**row.settings, "steps": 100})
        for row in result.rows
        if row.settings["kind"] == "attack"
    ]
    dataclasses.replace(result, model="longer", rows=tuple(rows)).save(run / "z" / "result.json")
    page = read(write_report(run))
    assert "100 steps" in page.text
    assert len(page.all("table")) == 3


def captions(page):
    return re.findall(r"Accuracy under PGD[^%]*(?= % of images)", page.text)


def attacked(result, **by_eps):
    """The rows under attack at eps 0.1 and 0.2, with settings that depend on eps."""
    rows = (row for row in result.rows if row.settings["kind"] == "attack")
    return [
        dataclasses.replace(
            row, settings={**row.settings, **{key: value(row.settings["eps"]) for key, value in by_eps.items()}}
        )
        for row in rows
    ]


def test_a_step_size_that_scales_with_eps_does_not_split_a_sweep(tmp_path, result):
    rows = (*attacked(result, step_size=lambda eps: eps / 4), *attacked(result, step_size=lambda _: 0.01))
    dataclasses.replace(result, rows=rows).save(tmp_path / "result.json")
    page = read(write_report(tmp_path))
    title = "Accuracy under PGD in Linf, 20 steps, 3 restarts"
    assert captions(page) == [f"{title} (step_size 0.25 eps)", f"{title} (step_size 0.01)"]
    assert page.text.count("54.4") == 2


def test_attacks_that_differ_in_one_setting_have_captions_that_say_so(tmp_path, result):
    rows = (*attacked(result, random_start=lambda _: True), *attacked(result, random_start=lambda _: False))
    dataclasses.replace(result, rows=rows).save(tmp_path / "result.json")
    found = captions(read(write_report(tmp_path)))
    assert [caption.partition("(")[2] for caption in found] == ["random_start true)", "random_start false)"]


def test_corruptions_with_other_constants_never_share_a_line(tmp_path, result):
    other = [
        dataclasses.replace(row, settings={**row.settings, "preset": "imagenet"}, value=0.5, low=0.0, high=1.0)
        for row in result.rows[3:]
    ]
    dataclasses.replace(result, rows=(*result.rows, *other)).save(tmp_path / "result.json")
    text = read(write_report(tmp_path)).text
    assert "contrast (preset cifar) 82.2" in text
    assert "contrast (preset imagenet) 50.0" in text


def test_columns_are_in_order_of_eps_and_named_by_it(tmp_path, result):
    rows = [
        dataclasses.replace(row, condition="an attack without numbers", settings={**row.settings, "eps": eps})
        for row, eps in zip([result.rows[1]] * 3, (16 / 255, 2 / 255, 8 / 255), strict=True)
    ]
    dataclasses.replace(result, rows=tuple(rows)).save(tmp_path / "result.json")
    text = read(write_report(tmp_path)).text
    assert "clean eps 2/255 eps 8/255 eps 16/255" in text


def test_another_metric_is_no_accuracy(tmp_path, result):
    odd = dataclasses.replace(result.rows[0], metric="loss", unit="nats", value=3.5, low=3.0, high=4.0)
    dataclasses.replace(result, rows=(odd, *result.rows[1:])).save(tmp_path / "result.json")
    text = read(write_report(tmp_path)).text
    assert "loss, nats value, 95 % interval below model clean small_cnn_8 3.5 3–4" in text
    assert "350.0" not in text


def test_a_second_row_of_the_same_settings_is_not_lost(tmp_path, result):
    again = dataclasses.replace(result.rows[1], value=0.5, low=0.25, high=0.75)
    dataclasses.replace(result, rows=(*result.rows, again)).save(tmp_path / "result.json")
    text = read(write_report(tmp_path)).text
    assert "54.4" in text
    assert "(repeat 2)" in text
    assert "25.0–75.0" in text


# ---- the folder ----


def test_results_come_in_order_of_their_folders_after_the_folders_own(tmp_path, result, monkeypatch):
    for name in ("b", "a-c", "a", "B"):
        dataclasses.replace(result, model=f"in {name}").save(tmp_path / name / "result.json")
    dataclasses.replace(result, model="own").save(tmp_path / "result.json")
    files = [tmp_path / name / "result.json" for name in ("b", "a-c", "a", "B")]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(files))
    found = [each.model for each in RunFolder.read(tmp_path).results]
    assert found == ["own", "in B", "in a", "in a-c", "in b"]


def test_models_of_one_name_get_their_folders(tmp_path, result):
    for folder, model in (("a", "robust"), ("b", "robust"), ("c", "ordinary")):
        dataclasses.replace(result, model=model).save(tmp_path / folder / "result.json")
    assert [each.model for each in RunFolder.read(tmp_path).results] == ["robust (a)", "robust (b)", "ordinary"]


@pytest.mark.parametrize("change", ["nothing", "other bytes", "gone", "a string", "absent"])
def test_figures_of_earlier_results_are_marked(run, result, change):
    digests = {
        f"{name}/result.json": hashlib.sha256((run / name / "result.json").read_bytes()).hexdigest()
        for name in ("ordinary", "robust")
    }
    entry = json.loads((run / "figures" / "index.json").read_text())["figures"][0]
    if change != "absent":
        entry["inputs"] = digests["robust/result.json"] if change == "a string" else digests
    figures(run, figures=[entry])
    if change == "other bytes":
        dataclasses.replace(result, model="robust", seed=8).save(run / "robust" / "result.json")
    elif change == "gone":
        (run / "robust" / "result.json").unlink()
    marked = "drawn from earlier results: run robust-viz figures again" in read(write_report(run)).text
    assert marked == (change in ("other bytes", "gone"))


def test_rows_of_an_unknown_kind_are_shown(tmp_path, result):
    row = dataclasses.replace(result.rows[0], condition="rotated", settings={"kind": "rotation"})
    dataclasses.replace(result, rows=(row,)).save(tmp_path / "result.json")
    assert "rotated" in read(write_report(tmp_path)).text


def test_a_result_without_rows_is_a_page(tmp_path):
    Result(model="empty", benchmark="none").save(tmp_path / "result.json")
    assert "no rows" in read(write_report(tmp_path)).text


def test_a_hundred_models_stay_below_five_megabytes(tmp_path, result):
    rows = [
        dataclasses.replace(row, settings={**row.settings, "corruption": f"corruption_{index}"})
        for index in range(19)
        for row in result.rows[3:]
    ]
    for number in range(100):
        many = dataclasses.replace(result, model=f"model {number}", rows=(*result.rows, *rows))
        many.save(tmp_path / f"{number:03}" / "result.json")
    path = write_report(tmp_path)
    assert path.stat().st_size < 5_000_000
    assert len(read(path).all("details")) == 100


# ---- errors ----


def test_a_missing_figure_is_an_error(run):
    (run / "figures" / "boundary.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"boundary\.png is listed but not there"):
        write_report(run)
    assert not (run / "report").exists()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not complete JSON"),
        ('{"format": "robust-figures/9"}', "robust-figures/9"),
        ("[]", "not an index"),
        ('{"format": "robust-figures/1", "figures": [{"file": "a.svg"}]}', "lacks a field"),
        ('{"format": "robust-figures/1"}', "lacks a field"),
        ("[" * 100_000, "not complete JSON"),
    ],
)
def test_a_damaged_index_of_figures_is_an_error(run, text, word):
    (run / "figures" / "index.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"index\.json.*{word}"):
        write_report(run)


@pytest.mark.parametrize(("name", "word"), [("../secret.svg", "outside"), ("a.html", "cannot embed")])
def test_only_pictures_of_the_folder_are_embedded(run, name, word):
    (run / "figures" / name).write_text(SVG, encoding="utf-8")
    entry = {"file": name, "title": "t", "caption": "c", "alt": "a"}
    figures(run, figures=[entry])
    with pytest.raises(ValueError, match=word):
        write_report(run)


def test_missing_and_empty_run_folders_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder"):
        write_report(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no results in"):
        write_report(tmp_path)


def test_a_damaged_result_is_an_error_with_its_path(run):
    (run / "robust" / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"robust.result\.json"):
        write_report(run)
