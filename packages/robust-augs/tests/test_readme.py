"""The examples of the README run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.skipif(not README.is_file(), reason="README.md does not lie beside the tests: this is an installed wheel")
def test_the_python_blocks_run():
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, README.name, "exec"), names)
    assert not re.search(r"^[A-Z]+$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)  # nothing left to fill in
    assert names["loss"].isfinite()
    assert names["again"].shape == names["images"].shape
    assert names["single"].shape == (3, 32, 32)
    assert names["views"].shape == (48, 3, 32, 32)
    assert names["soft_labels"].shape == (16, 10)
