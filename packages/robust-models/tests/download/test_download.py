"""From an entry of the zoo to a file of the cache that may be trusted."""

import errno
import hashlib
import io
import json
import logging
import sys
import tarfile
from pathlib import Path

import pytest
import robust_models.licences
import safetensors.torch
import torch
from robust_models.download import DownloadError, download
from robust_models.entry import Entry
from robust_models.locking import locked

pytestmark = pytest.mark.filterwarnings("ignore:.* is not https and its sha256 is not known")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def entry(web):
    """An entry whose file the server has."""

    def make(**options):
        return Entry(**({"name": "zoo/small", "arch": "resnet18", "urls": (web.url("/w.pt"),)} | options))

    return make


@pytest.fixture
def get(entry):
    def get(allow_http=True, accept_license=False, retrust=False, **options):
        return download(entry(**options), allow_http=allow_http, accept_license=accept_license, retrust=retrust)

    return get


@pytest.fixture
def place(cache):
    return cache / "zoo" / "small" / "w.pt"


def test_a_file_is_fetched_once_and_where_it_came_from_is_noted(web, file, get, weights, place, cache):
    web["/w.pt"] = file(content=weights, etag='"a"')
    assert get() == place
    assert place.read_bytes() == weights
    assert get() == place
    assert len(web.asked) == 1
    noted = json.loads((place.parent / "w.pt.json").read_text())
    assert noted.pop("date") > "2020"
    assert noted == {"url": web.url("/w.pt"), "size": len(weights), "sha256": sha256(weights), "etag": '"a"'}
    assert json.loads((cache / "trust.json").read_text())["zoo/small"]["sha256"] == sha256(weights)
    assert sorted(path.name for path in place.parent.iterdir()) == ["w.pt", "w.pt.json", "w.pt.lock"]


def test_the_first_file_decides_until_it_is_told_otherwise(web, file, get, weights, other_weights, place):
    web["/w.pt"] = file(content=weights)
    get()
    place.unlink()
    web["/w.pt"] = file(content=other_weights)
    with pytest.raises(DownloadError, match=f"{sha256(other_weights)}, and {sha256(weights)} was recorded.*--retrust"):
        get()
    assert not place.exists()
    assert place.with_name("w.pt.bad").read_bytes() == other_weights
    assert get(retrust=True).read_bytes() == other_weights
    place.unlink()
    web["/w.pt"] = file(content=weights)
    with pytest.raises(DownloadError, match=f"{sha256(other_weights)} was recorded"):
        get()


def test_a_file_of_the_cache_that_changed_is_set_aside_and_fetched_anew(web, file, get, weights, other_weights, place):
    web["/w.pt"] = file(content=weights)
    get()
    place.write_bytes(other_weights)
    with pytest.raises(ValueError, match=r"was recorded for zoo/small .* It is now .*w\.pt\.bad; the next call"):
        get()
    assert place.with_name("w.pt.bad").read_bytes() == other_weights
    assert get().read_bytes() == weights


def test_without_the_record_the_note_beside_the_file_is_required(web, file, get, weights, other_weights, place, cache):
    web["/w.pt"] = file(content=weights)
    get()
    (cache / "trust.json").unlink()
    assert get() == place
    assert (cache / "trust.json").exists()
    (cache / "trust.json").unlink()
    place.write_bytes(other_weights)
    with pytest.raises(ValueError, match=f"{sha256(weights)} was recorded"):
        get()


def test_a_cache_that_can_only_be_read_is_used(web, file, get, weights, place, monkeypatch):
    web["/w.pt"] = file(content=weights)
    get()
    opened = Path.open

    def read_only(path, mode="r", *arguments, **options):
        if mode not in ("r", "rb"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", read_only)
    assert get() == place
    monkeypatch.undo()
    place.unlink()
    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(PermissionError), locked(place):
        pass


def test_a_published_checksum_is_required_and_not_recorded(web, file, get, weights, other_weights, place, cache):
    web["/w.pt"] = file(content=other_weights)
    with pytest.raises(DownloadError, match=f"{sha256(other_weights)} and not {sha256(weights)}"):
        get(sha256=sha256(weights), retrust=True)
    web["/w.pt"] = file(content=weights)
    get(sha256=sha256(weights).upper())
    assert not (cache / "trust.json").exists()


def test_the_first_digits_of_a_checksum_are_required(web, file, get, weights, place):
    web["/w.pt"] = file(content=weights)
    wrong = "0" * 8 if sha256(weights)[0] != "0" else "1" * 8
    with pytest.raises(DownloadError, match=f"{sha256(weights)}, which should begin with {wrong}"):
        get(sha256_prefix=wrong)
    assert get(sha256_prefix=sha256(weights)[:8].upper()) == place


SAFE = safetensors.torch.save({"weight": torch.ones(1000)})


def as_before_zip(content):
    """A file as torch.save wrote it before version 1.6: a bare pickle that does not tell its length."""
    written = io.BytesIO()
    torch.save(content, written, _use_new_zipfile_serialization=False)
    return written.getvalue()


OLD = as_before_zip({"state_dict": {"weight": torch.ones(1000), "bias": torch.ones(3)}, "epoch": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"content": b"\n <!DOCTYPE html><title>Sign in</title>"}, "is a web page"),
        ({"content": b"Sign in", "kind": "text/html; charset=utf-8"}, r"web page \(text/html\)"),
        ({"content": b"version https://git-lfs.github.com/spec/v1"}, "Git LFS"),
        ({"content": b""}, "is empty"),
        ({"content": b'{"error": "quota"}'}, "neither a safetensors file nor one of torch.save"),
        ({"content": SAFE[:-1], "length": None}, f"{len(SAFE) - 1} bytes and its header tells of {len(SAFE)}"),
        ({"content": SAFE[:20], "length": None}, "header of the safetensors file is not whole"),
        ({"content": b"PK\x03\x04" + bytes(1000), "length": None}, "directory at the end of the zip file is missing"),
        ({"content": OLD[:-1], "length": None}, "is truncated or damaged"),
        ({"content": OLD[: len(OLD) // 2], "length": None}, "is truncated or damaged"),
        ({"content": OLD[:20], "length": None}, "is truncated or damaged"),
    ],
    ids=[
        *("page", "page by its type", "LFS", "empty", "JSON", "cut safetensors", "cut header", "cut zip"),
        *("old file without its last byte", "half of an old file", "begin of an old file"),
    ],
)
def test_a_bad_file_is_told_set_aside_and_never_used(options, message, web, file, get, place, cache):
    web["/w.pt"] = file(**options)
    with pytest.raises(DownloadError, match=message) as told:
        get()
    assert web.url("/w.pt") in str(told.value)
    assert str(place) in str(told.value)
    assert not (cache / "trust.json").exists()
    assert sorted(path.name for path in place.parent.iterdir()) == ["w.pt.bad", "w.pt.lock"]
    assert place.with_name("w.pt.bad").read_bytes() == options["content"]


def test_an_old_file_is_read_to_its_end_before_it_is_trusted_and_executes_nothing(web, file, get, place, tmp_path):
    """Also one that names objects which `load_weights` refuses."""

    class Runs:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    whole = as_before_zip({"state_dict": {"weight": torch.ones(1000)}, "config": Runs()})
    web["/w.pt"] = file(content=whole[:-1], length=None)
    with pytest.raises(DownloadError, match="is truncated or damaged"):
        get()
    web["/w.pt"] = file(content=whole, length=None)
    assert get().read_bytes() == whole
    assert not (tmp_path / "ran").exists()
    place.unlink()
    web["/w.pt"] = file(content=whole[:-1], length=None)
    with pytest.raises(DownloadError, match="was recorded for zoo/small"):  # no need to read it
        get()


def test_an_interrupted_download_goes_on_in_the_next_call(web, file, status, get, weights, place):
    half = len(weights) // 2
    web["/w.pt"] = [file(content=weights, stop_after=half), status(404)]
    with pytest.raises(DownloadError, match="HTTP 404"):
        get()
    assert place.with_name("w.pt.part").stat().st_size == half
    web["/w.pt"] = file(content=weights)
    assert get().read_bytes() == weights
    assert web.asked[-1][1]["range"] == f"bytes={half}-"
    assert sorted(path.name for path in place.parent.iterdir()) == ["w.pt", "w.pt.json", "w.pt.lock"]


def test_sources_are_tried_in_order(web, file, status, get, weights, other_weights, monkeypatch, caplog):
    web["/gone/w.pt"], web["/here/w.pt"], web["/never/w.pt"] = status(404), file(content=weights), status(500)
    urls = tuple(web.url(f"/{folder}/w.pt") for folder in ("gone", "here", "never"))
    assert get(urls=urls).read_bytes() == weights
    assert [path for path, _ in web.asked] == ["/gone/w.pt", "/here/w.pt"]
    assert "gone/w.pt: HTTP 404" in caplog.text


def test_a_mirror_with_another_file_is_passed_over(web, file, get, weights, other_weights, tmp_path, monkeypatch):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "w.pt").write_bytes(other_weights)
    monkeypatch.setenv("ROBUST_MODELS_MIRRORS", f"{tmp_path}/mirror/{{file}};{tmp_path}/none")
    web["/w.pt"] = file(content=weights)
    assert get(sha256=sha256(weights)).read_bytes() == weights
    assert (tmp_path / "mirror" / "w.pt").exists()


def test_a_mirror_comes_before_the_entrys_addresses(web, file, get, weights, monkeypatch, place):
    web["/m/zoo/small/w.pt"] = file(content=weights)
    monkeypatch.setenv("ROBUST_MODELS_MIRRORS", web.url("/m/"))
    assert get() == place
    assert [path for path, _ in web.asked] == ["/m/zoo/small/w.pt"]


def test_plain_http_needs_consent_or_a_known_checksum(web, file, get, weights, place):
    web["/w.pt"] = file(content=weights)
    with pytest.raises(DownloadError, match=r"is not https.*allow_http=True"):
        get(allow_http=False)
    assert web.asked == []
    assert get(allow_http=False, sha256=sha256(weights)) == place
    place.unlink()
    with pytest.warns(UserWarning, match="is not https and its sha256 is not known"):
        get()
    place.unlink()
    assert get(allow_http=False) == place, "the checksum is recorded now"
    place.unlink()
    with pytest.raises(DownloadError, match="allow_http"):
        get(allow_http=False, retrust=True)


@pytest.mark.parametrize("variable", ["ROBUST_MODELS_OFFLINE", "HF_HUB_OFFLINE"])
def test_without_the_network(variable, web, file, get, weights, place, monkeypatch, tmp_path):
    web["/w.pt"] = file(content=weights)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(FileNotFoundError) as told:
        get()
    assert str(place) in str(told.value)
    assert web.url("/w.pt") in str(told.value)
    place.write_bytes(weights)
    assert get(allow_http=False) == place
    place.unlink()
    monkeypatch.setenv("ROBUST_MODELS_MIRRORS", str(tmp_path / "mirror"))
    (tmp_path / "mirror" / "zoo" / "small").mkdir(parents=True)
    (tmp_path / "mirror" / "zoo" / "small" / "w.pt").write_bytes(weights)
    assert get().read_bytes() == weights
    assert web.asked == []


def test_a_file_put_in_place_by_hand(web, get, weights, other_weights, place, cache):
    place.parent.mkdir(parents=True)
    place.write_bytes(weights)
    assert get() == place
    assert json.loads((cache / "trust.json").read_text())["zoo/small"]["url"] == str(place)
    place.write_bytes(other_weights)
    with pytest.raises(ValueError, match="was recorded"):
        get()
    place.write_bytes(other_weights)
    assert get(retrust=True) == place
    assert get() == place
    assert json.loads((place.parent / "w.pt.json").read_text())["sha256"] == sha256(other_weights)
    place.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="web page"):
        get(retrust=True)
    assert web.asked == []


def test_pages_for_humans_are_named_and_not_fetched(web, get, cache):
    with pytest.raises(FileNotFoundError) as told:
        get(urls=(), share_pages=(web.url("/page"),))
    assert web.url("/page") in str(told.value)
    assert str(cache / "zoo" / "small" / "small.pt") in str(told.value)
    assert "no address of the file itself" in str(told.value)
    assert web.asked == []


def test_an_entry_of_several_files(get):
    with pytest.raises(ValueError, match="consists of 2 files"):
        get(urls=(), gdrive_ids=("a", "b"))


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "NVIDIA Source Code License-NC (code repository)"])
def test_a_restricted_licence_has_to_be_accepted(licence, web, file, get, weights, place, monkeypatch):
    web["/w.pt"] = file(content=weights)
    with pytest.raises(PermissionError, match=f"under {licence[:12]}.*accept_license=True"):
        get(license=licence)
    assert web.asked == []
    assert get(license=licence, accept_license=True) == place
    with pytest.raises(PermissionError):
        get(license=licence)
    monkeypatch.setenv("ROBUST_MODELS_ACCEPT_LICENSE", "1")
    assert get(license=licence) == place


def test_the_licence_is_logged_once(web, file, get, weights, caplog):
    robust_models.licences._say.cache_clear()
    web["/w.pt"] = file(content=weights)
    with caplog.at_level(logging.INFO, "robust_models"):
        get(license="MIT")
        get(license="MIT")
        get(name="zoo/other")
    said = [record.getMessage() for record in caplog.records if "licence" in record.getMessage()]
    assert said[0] == "licence of the weights zoo/small: MIT"
    assert len(said) == 2
    assert "unknown" in said[1]


def test_one_file_of_an_archive(web, file, get, weights, other_weights, cache):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in (("models/a.pth.tar", weights), ("models/b.pth.tar", other_weights)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    web["/w.tar"] = file(content=archive.getvalue())
    note = "one archive with several files; member b.pth.tar"
    found = get(urls=(web.url("/w.tar"),), note=note)
    assert found == cache / "zoo" / "small" / "member" / "b.pth.tar"
    assert found.read_bytes() == other_weights
    assert get(urls=(web.url("/w.tar"),), note=note) == found
    assert len(web.asked) == 1
    assert not list(cache.rglob("a.pth.tar"))


def test_a_plain_file_where_an_archive_should_be(web, file, get, weights):
    web["/w.tar"] = file(content=b"\x80\x02}.")
    with pytest.raises(DownloadError, match="no zip or tar archive"):
        get(urls=(web.url("/w.tar"),), note="one archive; member b.pth.tar")


def test_progress_is_shown_on_a_terminal_alone(web, file, entry, weights, place, capsys, monkeypatch):
    web["/w.pt"] = file(content=weights)
    download(entry(), allow_http=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    place.unlink()
    download(entry(), allow_http=True, progress=False)
    assert capsys.readouterr() == ("", "")
    place.unlink()
    download(entry(), allow_http=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.split("\r")[-1] == f"zoo/small: {len(weights) / 1e6:.1f} of {len(weights) / 1e6:.1f} MB (100%)\n"
