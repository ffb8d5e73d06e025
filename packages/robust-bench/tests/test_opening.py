"""Finding a benchmark's folder, and telling its layout."""

import pytest
from robust_bench.benchmarks import Entry, Options
from robust_bench.benchmarks.opening import opening

ENTRY = Entry(
    name="set",
    about="",
    source="",
    build=lambda options: None,
    layout="Expected DIR/set/<class>/*.png",
    folders=("set",),
    fits=lambda path: path.name == "set",
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "set").mkdir()
    return tmp_path


def test_the_folder_is_below_data_or_data_itself(root):
    for data in (root, root / "set"):
        with opening(ENTRY, Options(data=data)) as found:
            assert found == root / "set"


def test_an_inner_folder_is_entered_where_there_is_one(root):
    with opening(ENTRY, Options(data=root), "val") as found:
        assert found == root / "set"
    (root / "set" / "val").mkdir()
    with opening(ENTRY, Options(data=root), "val") as found:
        assert found == root / "set" / "val"


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError])
def test_what_goes_wrong_inside_is_told_with_the_layout(root, kind):
    with (
        pytest.raises(kind, match=r"^fog is missing\. Expected DIR/set/<class>") as caught,
        opening(ENTRY, Options(data=root)),
    ):
        raise kind("fog is missing")
    assert type(caught.value) is kind
    assert str(caught.value.__cause__) == "fog is missing"


def test_other_errors_pass(root):
    with pytest.raises(KeyError), opening(ENTRY, Options(data=root)):
        raise KeyError("x")
