import contextlib
import hashlib
import json
import threading
import warnings
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from robust_viz import add_figure, write_figures

SVG = "{http://www.w3.org/2000/svg}"


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def index_of(run):
    return json.loads((run / "figures" / "index.json").read_text())


def some_figure(numbers=(1, 2)):
    figure = Figure()
    figure.add_subplot().plot(numbers)
    return figure


TEXTS = ("A title", "A caption.", "A line that rises.")


def test_a_run_gets_all_figures_that_its_results_allow(run_folder):
    paths = write_figures(run_folder, png=True)
    assert [path.name for path in paths] == ["accuracy-vs-eps-digits-linf.svg", "corruptions-digits.svg"]
    assert set(contents(run_folder / "figures")) == {
        "accuracy-vs-eps-digits-linf.png",
        "accuracy-vs-eps-digits-linf.svg",
        "corruptions-digits.png",
        "corruptions-digits.svg",
        "index.json",
    }
    assert plt.get_fignums() == []


def test_the_index_says_what_each_figure_shows_and_was_made_from(run_folder):
    write_figures(run_folder)
    index = index_of(run_folder)
    assert index["format"] == "robust-figures/1"
    curves, heatmap = index["figures"]
    assert curves["file"] == "accuracy-vs-eps-digits-linf.svg"
    assert curves["title"] == "Accuracy on digits over Linf eps"
    for part in ("PGD-20 × 3", "Models: ordinary, robust.", "Seed 0."):
        assert part in curves["caption"]
    assert "ordinary falls from 97.0% at eps 0 to 20.0% at 0.1" in curves["alt"]
    assert "ordinary errs on 30.0% on average" in heatmap["alt"]
    digests = {
        f"{model}/result.json": hashlib.sha256((run_folder / model / "result.json").read_bytes()).hexdigest()
        for model in ("ordinary", "robust")
    }
    assert curves["inputs"] == heatmap["inputs"] == digests


def test_an_svg_parses_and_carries_its_title_and_description(run_folder):
    for path in write_figures(run_folder):
        root = ElementTree.fromstring(path.read_bytes())
        entry = next(f for f in index_of(run_folder)["figures"] if f["file"] == path.name)
        assert root.tag == f"{SVG}svg"
        assert root.find(f"{SVG}title").text == entry["title"]
        assert root.find(f"{SVG}desc").text == entry["alt"]


def test_a_second_run_writes_the_same_bytes_whatever_the_users_settings_are(run_folder):
    write_figures(run_folder, png=True)
    first = contents(run_folder / "figures")
    with matplotlib.rc_context({"svg.hashsalt": "another"}):
        write_figures(run_folder, png=True)
    assert contents(run_folder / "figures") == first
    assert all(b"20" + b"26-" not in content for name, content in first.items() if name.endswith(".svg"))  # no date


def test_signs_of_masking_are_in_the_caption(run_folder, make_result):
    rises = make_result("ordinary", pgd=((0.05, 0.5), (0.1, 0.7)))
    (run_folder / "ordinary" / "result.json").write_text(json.dumps(rises))
    write_figures(run_folder)
    assert "Possible gradient masking for ordinary" in index_of(run_folder)["figures"][0]["caption"]


def test_figures_of_others_stay_and_one_of_the_same_name_is_replaced_in_its_place(run_folder):
    path = add_figure(run_folder, some_figure(), "mine", *TEXTS)
    write_figures(run_folder)
    assert path == run_folder / "figures" / "mine.svg"
    assert [f["file"].split("-")[0] for f in index_of(run_folder)["figures"]] == ["mine.svg", "accuracy", "corruptions"]
    add_figure(run_folder, some_figure((3, 1)), "mine", "Another title", *TEXTS[1:])
    first = index_of(run_folder)["figures"][0]
    assert (first["file"], first["title"]) == ("mine.svg", "Another title")
    assert len(index_of(run_folder)["figures"]) == 3


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        add_figure(tmp_path / folder, some_figure(), "mine", *TEXTS, png=True)
    assert contents(tmp_path / "a" / "figures") == contents(tmp_path / "b" / "figures")


def test_inputs_are_in_the_index_only_of_figures_that_have_some(tmp_path):
    add_figure(tmp_path, some_figure(), "mine", *TEXTS)
    assert "inputs" not in index_of(tmp_path)["figures"][0]
    add_figure(tmp_path, some_figure(), "mine", *TEXTS, inputs={"result.json": "0" * 64})
    assert index_of(tmp_path)["figures"][0]["inputs"] == {"result.json": "0" * 64}
    with pytest.raises(TypeError, match="inputs are a mapping of result files"):
        add_figure(tmp_path, some_figure(), "mine", *TEXTS, inputs="0" * 64)


def test_figures_of_earlier_results_go_and_those_of_others_stay(run_folder, make_result):
    write_figures(run_folder, png=True)
    add_figure(run_folder, some_figure(), "mine", *TEXTS, png=True)
    for model in ("ordinary", "robust"):
        (run_folder / model / "result.json").write_text(json.dumps(make_result(model)))  # without corruptions
    write_figures(run_folder, png=True)
    kept = ["accuracy-vs-eps-digits-linf", "mine"]
    assert [entry["file"] for entry in index_of(run_folder)["figures"]] == [f"{name}.svg" for name in kept]
    files = {f"{name}.{kind}" for name in kept for kind in ("svg", "png")}
    assert set(contents(run_folder / "figures")) == files | {"index.json"}
    for model in ("ordinary", "robust"):
        (run_folder / model / "result.json").write_text(json.dumps(make_result(model, pgd=())))
    with pytest.raises(ValueError, match="neither attacks nor corruptions"):
        write_figures(run_folder)
    assert [entry["file"] for entry in index_of(run_folder)["figures"]] == ["mine.svg"]


def test_a_png_of_the_earlier_figure_does_not_outlive_it(tmp_path):
    add_figure(tmp_path, some_figure(), "mine", *TEXTS, png=True)
    add_figure(tmp_path, some_figure((3, 1)), "mine", *TEXTS)
    assert set(contents(tmp_path / "figures")) == {"mine.svg", "index.json"}


def test_an_index_that_points_out_of_its_folder_removes_nothing_there(run_folder):
    write_figures(run_folder)
    (run_folder / "precious.svg").write_text("mine")
    file = run_folder / "figures" / "index.json"
    index = json.loads(file.read_text())
    index["figures"].append({"file": "../precious.svg", "inputs": {"result.json": "0"}})
    file.write_text(json.dumps(index))
    write_figures(run_folder)
    assert (run_folder / "precious.svg").read_text() == "mine"
    assert len(index_of(run_folder)["figures"]) == 2


def test_eps_0_is_called_the_clean_accuracy_only_where_that_was_measured(tmp_path, make_result):
    results = {name: make_result(name) for name in ("a", "b")}
    sentence = "eps 0 is the clean accuracy"
    for without, end in (((), "."), (("a",), ", where it was measured."), (("a", "b"), None)):
        for name, content in results.items():
            rows = content["rows"][1:] if name in without else content["rows"]
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "result.json").write_text(json.dumps({**content, "rows": rows}))
        write_figures(tmp_path)
        (entry,) = index_of(tmp_path)["figures"]
        for text in (entry["caption"], entry["alt"]):
            assert (sentence in text) == (end is not None)
            assert end is None or sentence + end in text


def test_the_text_alternative_tells_single_points_and_rising_curves_as_they_are(tmp_path, make_result):
    attack = make_result.attack
    rows = [attack(0.5, 0.3, norm="L2"), attack(0.05, 0.5), attack(0.1, 0.7)]
    content = make_result(pgd=(), rows=rows)
    (tmp_path / "result.json").write_text(json.dumps({**content, "rows": content["rows"][1:]}))
    write_figures(tmp_path)
    single, rising = (entry["alt"] for entry in index_of(tmp_path)["figures"])
    assert "ordinary is at 30.0% at eps 0.5." in single
    assert "ordinary rises from 50.0% at eps 0.05 to 70.0% at 0.1." in rising


def test_control_characters_do_not_break_the_files(tmp_path, make_result):
    name = "a\x00b\x1bc\ud800d\ufffe"
    cells = [("fog\x07", severity, 0.2) for severity in range(1, 6)]
    (tmp_path / "result.json").write_text(json.dumps(make_result(name, corruptions=cells, benchmark="x\x0by")))
    paths = write_figures(tmp_path)
    figure = some_figure()
    figure.axes[0].set_title("mine \x01")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph 1 ")
        paths = (*paths, add_figure(tmp_path, figure, "mine", *(text + "\x02" for text in TEXTS)))
    for path in paths:
        ElementTree.fromstring(path.read_bytes())
    first, *_, last = index_of(tmp_path)["figures"]
    assert "Models: a\ufffdb\ufffdc\ufffdd\ufffd." in first["caption"]
    assert last["title"] == "A title\ufffd"


def test_two_threads_draw_as_one_does(tmp_path, monkeypatch):
    numbers = {"rising": (1, 2), "falling": (3, 1)}
    for name, line in numbers.items():
        add_figure(tmp_path / "serial", some_figure(line), name, *TEXTS)
    original, meeting, inside, most = Figure.savefig, threading.Barrier(2), [], []

    def together(self, *arguments, **options):
        inside.append(self)
        most.append(len(inside))
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=0.1)  # both get here at once if nothing keeps them apart
        original(self, *arguments, **options)
        inside.remove(self)

    monkeypatch.setattr(Figure, "savefig", together)
    with ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(add_figure, tmp_path / "parallel", some_figure(line), name, *TEXTS)
            for name, line in numbers.items()
        ]:
            done.result()
    assert max(most) == 1
    serial, parallel = contents(tmp_path / "serial" / "figures"), contents(tmp_path / "parallel" / "figures")
    for name in ("rising.svg", "falling.svg"):
        assert parallel[name] == serial[name]
    assert {entry["file"] for entry in index_of(tmp_path / "parallel")["figures"]} == {"rising.svg", "falling.svg"}


def test_texts_are_escaped_in_the_svg(tmp_path):
    path = add_figure(tmp_path, some_figure(), "x", "<script>alert(1)</script> & more", "c", 'a "quoted" <alt>')
    root = ElementTree.fromstring(path.read_bytes())
    assert root.find(f"{SVG}title").text == "<script>alert(1)</script> & more"
    assert root.find(f"{SVG}desc").text == 'a "quoted" <alt>'
    assert b"<script>" not in path.read_bytes()


def test_a_failed_drawing_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = add_figure(tmp_path, some_figure(), "mine", *TEXTS)
    before = contents(path.parent)

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        add_figure(tmp_path, some_figure((3, 1)), "mine", *TEXTS)
    assert contents(path.parent) == before


def test_one_model_and_names_in_other_scripts(tmp_path, make_result):
    (tmp_path / "result.json").write_text(json.dumps(make_result("модель $x_1$ <b>", benchmark="числа/é")))
    (path,) = write_figures(tmp_path)
    assert path.is_file()
    assert "модель $x_1$ <b>" in index_of(tmp_path)["figures"][0]["caption"]


def test_mistakes_are_told(tmp_path, make_result):
    with pytest.raises(FileNotFoundError, match="no run folder"):
        write_figures(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no result.json"):
        write_figures(tmp_path)
    file = tmp_path / "result.json"
    file.write_text(json.dumps({**make_result(), "rows": []}))
    with pytest.raises(ValueError, match="have no rows with an accuracy"):
        write_figures(tmp_path)
    file.write_text(json.dumps(make_result(pgd=())))
    with pytest.raises(ValueError, match="neither attacks nor corruptions"):
        write_figures(tmp_path)
    assert not (tmp_path / "figures").exists()
    for name in ("", "a/b", "../x", "a.svg", "-a"):
        with pytest.raises(ValueError, match="letters, digits"):
            add_figure(tmp_path, some_figure(), name, *TEXTS)
    for i, what in enumerate(("title", "caption", "alt")):
        texts = [*TEXTS[:i], " ", *TEXTS[i + 1 :]]
        with pytest.raises(ValueError, match=f"needs a {what}"):
            add_figure(tmp_path, some_figure(), "mine", *texts)


@pytest.mark.parametrize(
    "content",
    ["nonsense", "[]", '{"format": "other", "figures": []}', '{"format": "robust-figures/1", "figures": [1]}'],
)
def test_a_foreign_index_is_refused_and_kept(tmp_path, content):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index.json is not an index"):
        add_figure(tmp_path, some_figure(), "mine", *TEXTS)
    assert contents(tmp_path / "figures") == {"index.json": content.encode()}
