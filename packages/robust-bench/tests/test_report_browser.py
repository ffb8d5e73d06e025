"""The report page in a real browser."""

import dataclasses
import json

import pytest
from robust_bench.report import write_report

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="640" height="400"><circle cx="320" cy="200" r="150"/></svg>'

pytestmark = pytest.mark.browser


@pytest.fixture
def page_file(tmp_path, result):
    folder = tmp_path / "demo"
    for name in ("ordinary", "a-model-name-without-any-space-that-is-far-too-long-for-a-telephone", "<script>"):
        dataclasses.replace(result, model=name).save(folder / str(len(name)) / "result.json")
    (folder / "figures").mkdir()
    (folder / "figures" / "a.svg").write_text(SVG, encoding="utf-8")
    entry = {"file": "a.svg", "title": "A disc", "caption": "It is round.", "alt": "A disc"}
    index = {"format": "robust-figures/1", "figures": [entry]}
    (folder / "figures" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return write_report(folder)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_renders_without_errors_requests_or_overflow(browser, page_file, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())

    assert page.title() == "demo – robustness report"
    assert page.locator("h1").inner_text() == "demo"
    assert page.locator("table").count() == 2
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert widths == [640]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.scripts.length") == 0
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []

    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.strip("rgb()").split(",")[:3]) / 3
    assert brightness < 60 if scheme == "dark" else brightness > 200
    page.close()


def test_wide_tables_scroll_in_their_own_box(browser, page_file):
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.goto(page_file.as_uri())
    box = page.locator(".scroll").last
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") > 100
    box.evaluate("box => box.scrollLeft = 100")
    assert box.evaluate("box => box.scrollLeft") == 100
    heading = box.locator("th[scope=row]").first.bounding_box()
    assert heading["x"] >= 0  # the models' names stay in view
    page.close()


def test_text_has_contrast(browser, page_file):
    """WCAG AA: at least 4.5 to 1 for the smallest text on the strongest tint."""
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(page_file.as_uri())
        ratio = page.evaluate(
            """() => {
              const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
              const paint = colours => {
                for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
                return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
              };
              const luminance = rgb => rgb.map(c => c / 255)
                .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
                .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
              const cell = document.querySelector('td[style]');
              const text = cell.querySelector('.interval');
              const under = [getComputedStyle(document.querySelector('.scroll')).backgroundColor,
                             getComputedStyle(cell).backgroundColor];
              const [a, b] = [luminance(paint(under)), luminance(paint([...under, getComputedStyle(text).color]))];
              return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            }"""
        )
        page.close()
        assert ratio >= 4.5, (scheme, ratio)


def test_the_settings_open_by_keyboard(browser, page_file):
    page = browser.new_page()
    page.goto(page_file.as_uri())
    summary = page.locator("summary").first
    assert not page.locator("pre").first.is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("pre").first.is_visible()
    assert summary.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
    page.close()


def test_it_prints_on_white(browser, page_file):
    page = browser.new_page(color_scheme="dark")
    page.emulate_media(media="print")
    page.goto(page_file.as_uri())
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.close()
