"""The examples of the README run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.skipif(not README.is_file(), reason="README.md does not lie beside the tests: this is an installed wheel")
def test_the_python_blocks_run():
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names = {}
    for block in blocks:
        exec(compile(block, README.name, "exec"), names)
    assert names["look"].updates == 10
    assert names["halfway"].keys() == names["model"].state_dict().keys()
