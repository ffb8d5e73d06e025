"""The examples of the README run as they stand, one after the other."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.skipif(not README.is_file(), reason="README.md does not lie beside the tests: this is an installed wheel")
def test_the_python_blocks_run(tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)  # they write files
    torch.manual_seed(0)
    names = {}
    for block in blocks:
        exec(compile(block, README.name, "exec"), names)
    report = names["report"].from_json((tmp_path / "report.json").read_text())
    assert report == names["report"]
    assert (tmp_path / "run.pt").is_file()
    assert names["first"].shape == (5, 3, 8, 8)
