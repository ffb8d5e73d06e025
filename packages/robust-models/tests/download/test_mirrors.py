"""The order of places, and what mirrors are asked for."""

from pathlib import Path

import pytest
from robust_models.entry import Entry
from robust_models.mirrors import Source, sources

ENTRY = Entry(
    name="zoo/cifar10/small",
    arch="resnet18",
    family="other",
    urls=("https://one.example/a%20b/w-1.pt?download=1", "http://two.example/w.pt"),
    gdrive_ids=("ID",),
    share_pages=("https://human.example/page",),
)
OWN = [Source(url=ENTRY.urls[0]), Source(url=ENTRY.urls[1]), Source(drive_id="ID")]


def test_without_mirrors_addresses_come_in_order_then_google_drive_and_no_page():
    assert sources(ENTRY, None) == OWN
    assert [str(source) for source in OWN] == [*ENTRY.urls, "Google Drive ID"]


@pytest.mark.parametrize(
    ("mirror", "source"),
    [
        ("https://m.example/{family}/x/{id}?f={file}", Source(url="https://m.example/zoo/x/cifar10/small?f=w-1.pt")),
        ("https://m.example/weights/", Source(url="https://m.example/weights/zoo/cifar10/small/w-1.pt")),
        ("/data/weights", Source(path=Path("/data/weights/zoo/cifar10/small/w-1.pt"))),
        ("/data/{sha256}", Source(path=Path("/data") / ("a" * 64))),
        ("file:///data/my%20weights/{file}", Source(path=Path("/data/my weights/w-1.pt"))),
        ("~/weights/{file}", Source(path=Path.home() / "weights" / "w-1.pt")),
    ],
)
def test_mirrors_come_first(mirror, source, monkeypatch):
    monkeypatch.setenv("ROBUST_MODELS_MIRRORS", f"/first ; {mirror};")
    first = Source(path=Path("/first/zoo/cifar10/small/w-1.pt"))
    assert sources(ENTRY, "a" * 64) == [first, source, *OWN]


def test_a_mirror_by_checksum_is_left_out_while_none_is_known(monkeypatch):
    monkeypatch.setenv("ROBUST_MODELS_MIRRORS", "https://m.example/{sha256}")
    assert sources(ENTRY, None) == OWN


def test_several_files_on_google_drive_are_no_alternatives():
    two = Entry(name="zoo/small", arch="resnet18", gdrive_ids=("a", "b"))
    assert sources(two, None) == []
