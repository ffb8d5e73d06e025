"""The demo from end to end: its numbers, its files, and its page in a real browser."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What the demo printed, and the folder that it filled."""
    folder = tmp_path_factory.mktemp("clone") / "runs" / "demo"
    strict = ["-W", "error", "-W", "default::DeprecationWarning"]  # old libraries among themselves, under `minimums`
    command = [sys.executable, *strict, str(ROOT / "examples" / "demo.py"), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def accuracies(folder, model):
    rows = json.loads((folder / model / "result.json").read_text())["rows"]
    assert {row["count"] for row in rows} == {450}
    corrupted = [row for row in rows if row["settings"]["kind"] == "corruption"]
    assert len(rows) == 1 + 4 + 7 * 5 == 5 + len(corrupted)  # seven corruptions take 8 x 8 pixels
    return {row["settings"].get("eps", 0): row["value"] for row in rows if row not in corrupted}


def test_training_against_fgsm_rs_keeps_the_digits_right_under_attack(demo):
    printed, folder = demo
    ordinary, robust = accuracies(folder, "ordinary"), accuracies(folder, "robust")
    assert ordinary[0] >= 0.96
    assert 0.02 <= ordinary[0.15] <= 0.35
    assert robust[0] >= 0.97
    assert robust[0.15] >= 0.65
    for accuracy in (*ordinary.values(), *robust.values()):
        assert f"{100 * accuracy:.1f}" in printed


def test_it_leaves_weights_figures_and_a_page_and_says_where(demo):
    printed, folder = demo
    for model in ("ordinary", "robust"):
        assert (folder / model / "model.safetensors").is_file()
    figures = json.loads((folder / "figures" / "index.json").read_text())["figures"]
    assert [figure["file"] for figure in figures] == [
        "accuracy-vs-eps-digits-linf.svg",
        "corruptions-digits.svg",
        "decision-boundaries.svg",
    ]
    assert str(folder / "report" / "index.html") in printed.replace("\n", "")


def test_the_ten_lines_of_the_readme_work_on_what_it_leaves(demo, monkeypatch, capsys):
    _, folder = demo
    monkeypatch.chdir(folder.parents[1])
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    clean, attacked = (accuracies(folder, "robust")[eps] for eps in (0, 0.15))
    printed = capsys.readouterr().out
    assert f"{100 * clean:.1f}" in printed
    assert f"{100 * attacked:.1f}" in printed


@pytest.mark.browser
def test_its_page_opens_in_a_browser_with_all_figures(demo):
    if CHROMIUM is None:
        pytest.skip("no Chromium on the path")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive the browser")
    messages, requests = [], []
    with sync_api.sync_playwright() as playwright:
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((demo[1] / "report" / "index.html").as_uri())
        widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        cells = page.inner_text("main")
        browser.close()
    assert len(widths) == 3
    assert min(widths) > 100
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert "ordinary" in cells
    assert "robust" in cells
