"""Pages from templates: names are escaped, styles and scripts are inside, nothing is loaded from anywhere."""

import base64
import functools
import hashlib
import json
from importlib import resources
from typing import Any

import jinja2

from robust_bench.report.direction import lower_is_better
from robust_bench.tables import eps_text, interval, metric_title, number, percent


def page(template: str, *, styles: tuple[str, ...] = (), script: str | None = None, **values: Any) -> str:
    """Render a page as HTML text.

    Args:
        template: its file name.
        styles: names of style sheets that it needs beside `style.css`.
        script: name of its script; no other one may run on the page, whatever it contains.
        values: what the template shows; text is escaped.
    """
    code = None if script is None else _file(script)
    return (
        _environment()
        .get_template(template)
        .render(
            style="".join(_file(name) for name in ("style.css", *styles)),
            script=code,
            script_hash=None if code is None else _hash(code),
            **values,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robust_bench", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "interval": interval,
        "metric_title": metric_title,
        "eps": eps_text,
        "short": short,
        "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=dict),
    }
    environment.tests["lower_is_better"] = lower_is_better
    return environment


@functools.cache
def _file(name: str) -> str:
    return resources.files("robust_bench.report").joinpath(name).read_text(encoding="utf-8")


def _hash(code: str) -> str:
    """How a content security policy names a script: the source expression of CSP level 2."""
    return f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode('ascii')}"


def short(count: int) -> str:
    """Write a large number as people do.

    Examples:
        >>> short(25_557_032), short(4_089_184_256), short(1_234), short(999_999)
        ('25.6 M', '4.09 G', '1.23 k', '1.00 M')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{_three(count / size)} {letter}"
    return str(count)


def _three(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
