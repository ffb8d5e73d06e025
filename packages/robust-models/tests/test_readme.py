"""The examples of the README run as they stand, one after the other."""

import re
from pathlib import Path

import pytest
from robust_models.cli_tables import markdown
from robust_models.registry import list_models

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.skipif(not README.is_file(), reason="README.md does not lie beside the tests: this is an installed wheel")
def test_the_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    names = {}
    for block in blocks:
        exec(compile(block, README.name, "exec"), names)
    assert names["logits"].shape == (4, 10)
    assert (tmp_path / "weights.safetensors").is_file()


@pytest.mark.skipif(not README.is_file(), reason="README.md does not lie beside the tests: this is an installed wheel")
def test_the_table_of_the_zoo_is_that_of_the_registry():
    entries = [entry for entry in list_models(sort="name") if entry.family != "timm"]
    assert f"--markdown -->\n\n{markdown(entries)}\n\n<!-- end -->" in README.read_text(encoding="utf-8")
