"""The demo from end to end, with hardly any training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_demo_prints_a_table_and_leaves_results_figures_and_a_page(tmp_path):
    command = [
        sys.executable,
        "-W",
        "error",
        str(ROOT / "examples" / "demo.py"),
        "--epochs",
        "2",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {}
    for model in ("ordinary", "robust"):
        assert (tmp_path / model / "model.safetensors").is_file()
        rows[model] = json.loads((tmp_path / model / "result.json").read_text())["rows"]
        assert len(rows[model]) == 1 + 4 + 4 * 5
        assert {row["count"] for row in rows[model]} == {450}
        clean, *attacked = [row["value"] for row in rows[model][:5]]
        assert max(attacked) <= clean  # robust images are right when clean
        assert attacked[-1] <= attacked[0]
        assert f"{100 * clean:.1f}" in done.stdout
    figures = json.loads((tmp_path / "figures" / "index.json").read_text())["figures"]
    assert [figure["file"] for figure in figures] == [
        "accuracy-vs-eps-digits-linf.svg",
        "corruptions-digits.svg",
        "decision-boundaries.svg",
    ]
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert str(tmp_path / "report" / "index.html") in done.stdout.replace("\n", "")
