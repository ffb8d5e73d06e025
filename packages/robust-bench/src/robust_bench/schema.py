"""The form of a result file, for programs in any language."""

import json
from importlib import resources
from typing import Any


def schema() -> dict[str, Any]:
    """Give the JSON Schema (draft 2020-12) of `result.json`, version "robust-result/1".

    It lies beside this module as `result.schema.json` and describes every field. `Result.from_json` checks all that it
    says, and the three things besides that a schema cannot say, which it lists.

    Examples:
        >>> schema()["title"], sorted(schema()["required"])
        ('robust-result/1', ['benchmark', 'format', 'model', 'rows'])
    """
    file = resources.files("robust_bench").joinpath("result.schema.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
