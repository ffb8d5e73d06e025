"""The leaderboard in a real browser."""

import random

import pytest
from robust_bench import Result, Row
from robust_bench.report import write_site
from robust_bench.report.leaderboard import leaderboard
from robust_bench.report.site import index_page

CLEAN = {
    "ordinary": 900,
    "robust 10": 700,
    "robust 9": 700,
    "<script>window.pwned=1</script>": 500,
    "<img src=x onerror=window.pwned=1>": 3,
}
LONG = "a-model-name-without-any-space-that-is-far-too-long-for-a-telephone-of-any-size"

pytestmark = pytest.mark.browser


def accuracy(benchmark, condition, correct, **settings):
    return Row.accuracy(
        benchmark=benchmark, condition=condition, settings=settings, correct=correct, count=1000, seconds=1.0
    )


def model(name, clean, *, parameters=None, error=None, levels=(2, 4, 8), severities=(1, 2, 3, 4, 5)):
    """A result with every kind of row; a score of corruptions where there is an error."""
    rows = [accuracy("imagenet-val", "clean", clean, kind="clean")]
    rows += [
        accuracy(
            "imagenet-val", f"PGD-20, Linf {level}/255", clean // level, kind="attack", norm="Linf", eps=level / 255
        )
        for level in levels
    ]
    rows += [
        accuracy("imagenet-c", f"{name} {s}", clean // s, kind="corruption", corruption=name, severity=s)
        for name in ("fog", "snow", "pixelate")
        for s in severities
    ]
    if error is not None:
        rows.append(
            Row(
                benchmark="imagenet-c",
                condition="15 corruptions",
                settings={"kind": "score"},
                metric="mean_corruption_error",
                value=error,
                low=error - 0.01,
                high=error + 0.01,
                count=1000,
            )
        )
    about = {"spec": "timm:resnet18", "sha256": name} | ({} if parameters is None else {"parameters": parameters})
    return Result(model=name, benchmark="all", rows=tuple(rows), settings={"model": about})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Six models; one has no parameters, two have no mCE."""
    folder = tmp_path_factory.mktemp("site")
    sizes = (25_000_000, 5_000_000, 11_000_000, None, 90_000_000)
    errors = (0.8, None, 0.5, 0.6, None)
    for number, ((name, clean), parameters, error) in enumerate(zip(CLEAN.items(), sizes, errors, strict=True)):
        model(name, clean, parameters=parameters, error=error).save(folder / "runs" / str(number) / "result.json")
    model(LONG, 2, parameters=1000, error=0.9).save(folder / "runs" / "5" / "result.json")
    return write_site([folder / "runs"], folder / "site")


@pytest.fixture
def page(browser, site):
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.goto(site.as_uri())
    yield opened
    assert opened.evaluate("window.pwned") is None
    opened.close()


def shown(page):
    return page.eval_on_selector_all(
        "#board tbody tr", "rows => rows.map(r => r.cells[0].querySelector('bdi').textContent)"
    )


def heading(page, text):
    return page.locator("#board thead th[data-sort]", has_text=text).first


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_pages_render_without_errors_requests_or_overflow(browser, site, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    for file in (site, *sorted((site.parent / "models").iterdir())):
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in background.strip("rgb()").split(",")[:3]) / 3
        assert brightness < 60 if scheme == "dark" else brightness > 200
        assert page.evaluate("window.pwned") is None
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.close()


def test_every_name_leads_to_its_page(page, site):
    for name in shown(page):
        page.goto(site.as_uri())
        link = page.locator("#board tbody th a:first-child").nth(shown(page).index(name))
        link.click()
        assert page.locator("h1").inner_text() == name
        assert page.evaluate("document.scripts.length") == 0
        page.locator(".kicker a").click()
        assert page.title() == "Robustness leaderboard"


# ---- sorting ----


def test_headings_sort_both_ways_and_missing_ones_stay_last(page):
    first, second, third, fourth, fifth = CLEAN
    assert shown(page) == [first, second, third, fourth, fifth, LONG]
    clean, error = heading(page, "clean"), heading(page, "mCE")
    assert clean.get_attribute("aria-sort") == "descending"

    error.locator("button").click()
    assert error.get_attribute("aria-sort") == "ascending"  # lower is better
    assert clean.get_attribute("aria-sort") is None
    assert shown(page) == [third, fourth, first, LONG, second, fifth]
    error.locator("button").click()
    assert error.get_attribute("aria-sort") == "descending"
    assert shown(page) == [LONG, first, fourth, third, second, fifth]

    clean.locator("button").click()
    assert shown(page) == [first, second, third, fourth, fifth, LONG]
    size = heading(page, "Parameters")
    size.locator("button").click()
    assert shown(page) == [fifth, first, third, second, LONG, fourth]
    assert "sorted by Parameters, descending" in page.locator("#status").inner_text()


def test_names_are_sorted_as_people_do(page):
    heading(page, "Model").locator("button").click()
    found = shown(page)
    assert found.index("robust 9") < found.index("robust 10")
    assert found.index("ordinary") < found.index("robust 9")


def test_headings_sort_by_keyboard(page):
    button = heading(page, "mCE").locator("button")
    button.focus()
    page.keyboard.press("Enter")
    assert heading(page, "mCE").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert heading(page, "mCE").get_attribute("aria-sort") == "descending"
    assert button.evaluate("element => getComputedStyle(element).outlineStyle") != "none"


# ---- filters ----


def test_a_part_of_a_name_chooses_models(page):
    page.locator("#names").fill("ROBUST 1")
    assert shown(page) == ["robust 10"]
    assert page.locator("#status").inner_text().startswith("1 of 6 models")
    page.locator("#names").fill("script")
    assert shown(page) == ["<script>window.pwned=1</script>"]
    page.locator("#names").fill("nobody is called like that")
    assert shown(page) == []
    assert page.locator("#nobody").is_visible()
    page.locator("#names").fill("")
    assert len(shown(page)) == 6
    assert not page.locator("#nobody").is_visible()


def test_parameters_choose_models_and_unknown_ones_are_none(page):
    page.locator("#parameters").fill("11")
    assert shown(page) == ["ordinary", "robust 9", "<img src=x onerror=window.pwned=1>"]
    page.locator("#names").fill("robust")
    assert shown(page) == ["robust 9"]
    page.locator("#names").fill("")
    page.locator("#parameters").fill("0")
    assert len(shown(page)) == 6


def test_columns_are_shown_and_hidden(page):
    def visible():
        return page.locator("#board thead .head:visible").all_inner_texts()

    assert visible() == ["Model", "clean", "PGD-20", "PGD-20", "PGD-20", "mCE", "Parameters", "Multiply-adds"]
    page.get_by_role("checkbox", name="imagenet-c in detail").check()
    assert visible()[5:9] == ["mCE", "fog", "snow", "pixelate"]
    page.get_by_role("checkbox", name="imagenet-val").uncheck()
    assert visible() == ["Model", "mCE", "fog", "snow", "pixelate", "Parameters", "Multiply-adds"]
    cells = page.locator("#board tbody tr").first.locator("td:visible")
    assert cells.count() == 6
    heading(page, "fog").locator("button").click()
    assert shown(page)[0] == "ordinary"


def test_without_script_everything_is_there(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.as_uri())
    assert not page.locator("#controls").is_visible()
    assert page.locator("#board tbody tr").count() == 6
    assert page.locator("#board tbody th").first.inner_text().startswith("ordinary")
    assert page.locator("#board thead button").count() == 0
    assert page.locator("#board thead th[aria-sort]").inner_text().startswith("clean")
    page.goto((site.parent / "models" / "ordinary.html").as_uri())
    page.locator(".more input").check()
    assert page.locator(".heat .interval").first.is_visible()
    context.close()


def test_a_thousand_models_sort(browser, tmp_path):
    shuffled = random.Random(0)
    values = [shuffled.randrange(1001) for _ in range(1000)]
    results = [
        model(
            f"model {number}",
            clean,
            parameters=number * 1_000_000,
            error=None if number % 7 == 0 else shuffled.random(),
            levels=(4,),
            severities=(),
        )
        for number, clean in enumerate(values)
    ]
    file = tmp_path / "index.html"
    file.write_text(index_page(leaderboard(results), results), encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())

    order = sorted(range(1000), key=lambda number: -values[number])
    assert len(shown(page)) == 100
    page.locator("#all").click()
    assert not page.locator("#all").is_visible()
    whole = shown(page)
    assert len(set(whole)) == 1000
    assert [values[int(name.split()[1])] for name in whole] == [values[number] for number in order]
    heading(page, "Parameters").locator("button").click()
    assert shown(page) == [f"model {number}" for number in range(999, -1, -1)]
    heading(page, "mCE").locator("button").click()
    last = {int(name.split()[1]) % 7 for name in shown(page)[-143:]}
    assert last == {0}
    page.locator("#names").fill("99 model")
    assert {int(name.split()[1]) for name in shown(page)} == {n for n in range(1000) if "99" in str(n)}
    page.close()


# ---- how it looks ----


def test_the_table_scrolls_in_its_own_box_with_names_in_view(browser, site):
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.goto(site.as_uri())
    box = page.locator(".scroll").first
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") > 100
    box.evaluate("box => box.scrollLeft = 200")
    left = box.bounding_box()["x"]
    for each in (page.locator("#board tbody th").first, page.locator("#board thead th.model")):
        assert 0 <= each.bounding_box()["x"] - left <= 2
    page.close()


def test_headings_stay_in_view_above_many_models(browser, tmp_path):
    for number in range(40):
        model(f"model {number}", number, parameters=1).save(tmp_path / "runs" / str(number) / "result.json")
    page = browser.new_page(viewport={"width": 800, "height": 600})
    page.goto(write_site([tmp_path / "runs"], tmp_path / "site").as_uri())
    box = page.locator(".scroll").first
    box.evaluate("box => box.scrollTop = 900")
    assert box.evaluate("box => box.scrollTop") == 900
    top = box.bounding_box()["y"]
    assert 0 <= page.locator("#board thead").bounding_box()["y"] - top <= 2
    page.close()


def test_text_has_contrast(browser, site):
    """WCAG AA: at least 4.5 to 1 for small text on the strongest tint, in the table and in the map."""
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        for file, cell in ((site, "#board td[style]"), (site.parent / "models" / "ordinary.html", ".heat td[style]")):
            page.goto(file.as_uri())
            ratio = page.evaluate(
                """selector => {
                  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
                  const paint = colours => {
                    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
                    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
                  };
                  const luminance = rgb => rgb.map(c => c / 255)
                    .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
                    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
                  const cell = document.querySelector(selector);
                  cell.style.setProperty('--share', '1');
                  const under = [getComputedStyle(document.querySelector('.scroll')).backgroundColor,
                                 getComputedStyle(cell).backgroundColor];
                  return Math.min(...['.interval', '.value'].map(part => {
                    const text = getComputedStyle(cell.querySelector(part)).color;
                    const [a, b] = [luminance(paint(under)), luminance(paint([...under, text]))];
                    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
                  }));
                }""",
                cell,
            )
            assert ratio >= 4.5, (scheme, cell, ratio)
        page.close()


def test_the_curve_and_the_map_are_drawn(browser, site):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((site.parent / "models" / "ordinary.html").as_uri())
    points = page.eval_on_selector_all(".plot .dot", "dots => dots.map(dot => dot.getBoundingClientRect().y)")[:4]
    assert points == sorted(points)  # 90, 45, 22.5, 11.2 %: further down the page
    assert points[0] < points[-1]
    colours = page.eval_on_selector_all(
        ".heat tbody:last-of-type tr:last-child td[style]",
        "cells => cells.map(cell => getComputedStyle(cell).backgroundColor)",
    )
    assert len(set(colours)) == len(colours)
    assert not page.locator(".heat .interval").first.is_visible()
    page.close()


def test_it_prints_on_white_with_all_models_and_without_controls(browser, site):
    page = browser.new_page(color_scheme="dark")
    page.emulate_media(media="print")
    for file in (site, site.parent / "models" / "ordinary.html"):
        page.goto(file.as_uri())
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator(".heat .interval").first.is_visible()
    page.goto(site.as_uri())
    assert not page.locator("#controls").is_visible()
    page.close()


def test_a_script_that_is_not_the_pages_own_does_not_run(page):
    page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'window.foreign = 1';
          document.body.append(script);
          document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.foreign = 2">');
        }"""
    )
    assert page.evaluate("window.foreign") is None
