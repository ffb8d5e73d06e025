"""Where files lie."""

import sys
from pathlib import Path

import pytest
from robust_models.cache import Origin, file_name, home, is_set, offline, place, write_whole
from robust_models.entry import Entry


def named(*urls, name="zoo/WRN-34-10"):
    return Entry(name=name, arch="resnet18", urls=urls)


@pytest.mark.parametrize(
    ("urls", "name"),
    [
        (["https://x.example/a/model_best.pth.tar"], "model_best.pth.tar"),
        (["https://x.example/a%20b/w%2B1.pt?raw=true#top"], "w+1.pt"),
        (["https://x.example/f/3d0c1579/?dl=1"], "WRN-34-10.pt"),
        (["https://x.example/f/?dl=1", "https://y.example/w.pt"], "w.pt"),
        (["https://x.example/..%2F..%2Fetc%2Fpasswd.pt"], "passwd.pt"),
        (["https://x.example/..", "https://x.example/.pt", "https://x.example/a b.pt"], "WRN-34-10.pt"),
        ([], "WRN-34-10.pt"),
    ],
)
def test_the_name_of_a_file(urls, name):
    assert file_name(named(*urls)) == name


def test_the_place_of_a_file(cache):
    assert place(named(name="zoo/cifar10/small")) == cache / "zoo" / "cifar10" / "small" / "small.pt"


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "~/.cache/robust-models"),
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/robust-models"),
        ("darwin", {"XDG_CACHE_HOME": "/caches"}, "~/Library/Caches/robust-models"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/robust-models"),
        ("win32", {}, "~/AppData/Local/robust-models"),
        ("linux", {"ROBUST_MODELS_HOME": "~/weights", "XDG_CACHE_HOME": "/caches"}, "~/weights"),
    ],
)
def test_the_folder_of_the_cache(platform, variables, folder, monkeypatch):
    for name in ("ROBUST_MODELS_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert home() == Path(folder).expanduser()


@pytest.mark.parametrize(("value", "yes"), [("1", True), ("TRUE", True), (" on ", True), ("0", False), ("", False)])
def test_what_says_yes(value, yes, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert is_set("HF_HUB_OFFLINE") is offline() is yes


def test_a_damaged_note_is_no_note(tmp_path):
    origin = Origin(url="u", size=1, sha256="s", etag="", date="d")
    origin.write(tmp_path / "w.pt")
    assert Origin.read(tmp_path / "w.pt") == origin
    (tmp_path / "w.pt.json").write_text('{"url": "u"}')
    assert Origin.read(tmp_path / "w.pt") is None
    assert Origin.read(tmp_path / "none.pt") is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_whole(tmp_path / "f", b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "f", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"old")]
