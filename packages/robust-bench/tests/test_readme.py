"""The examples of the README run as they stand, one after the other."""

import re
from pathlib import Path

import pytest
import torch
from robust_bench import Result

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.skipif(not README.is_file(), reason="README.md does not lie beside the tests: this is an installed wheel")
def test_the_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(compile(block, README.name, "exec"), names)
    saved = Result.load(tmp_path / "runs" / "ordinary" / "result.json")
    assert saved == names["result"]
    assert [row.settings["kind"] for row in saved.rows] == ["clean", "attack", "corruption"]
    assert "PGD-20 × 3, Linf 0.15" in capsys.readouterr().out
    assert names["mean_corruption_error"](names["errors"]) == pytest.approx(0.5)
    assert names["corrupted"].shape == names["images_uint8"].shape
    assert names["frame"].shape == (4, 3, 224, 224)
