"""A server that asks before it gives a file out, as Google Drive does."""

import importlib
import json
import sys
import types
from pathlib import Path

import pytest
from robust_models import google_drive
from robust_models.connection import TransferError, opener
from robust_models.download import DownloadError, download
from robust_models.entry import Entry

downloading = importlib.import_module("robust_models.download")  # the package has a function of that name
pytestmark = pytest.mark.filterwarnings("ignore:.* is not https and its sha256 is not known")

QUESTION = b"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="search" action="/search"><input name="q" value="x"></form>
<p>w.pt (1.2G) is too large for Google to scan for viruses. Would you still like to download this file?</p>
<form id="download-form" action="%s" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="ID&amp;1"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="%s"></form></body></html>"""


@pytest.fixture(autouse=True)
def drive(web, monkeypatch):
    monkeypatch.setattr(google_drive, "_ADDRESS", web.url("/uc?export=download&id={}"))
    monkeypatch.setitem(sys.modules, "gdown", None)
    monkeypatch.setattr(google_drive, "has_gdown", lambda: False)
    monkeypatch.setattr(downloading, "has_gdown", lambda: False)


@pytest.fixture
def get():
    return lambda **options: download(
        Entry(name="zoo/small", arch="resnet18", gdrive_ids=("ID&1",), **options), allow_http=True
    )


def page(file, content):
    return file(content=content, kind="text/html; charset=utf-8", etag="")


def question(web, file, uuid=b"1234"):
    return page(file, QUESTION % (web.url("/download?authuser=0").encode(), uuid))


def test_a_small_file_comes_at_once(web, file, get, weights, cache):
    web["/uc"] = file(content=weights)
    assert get() == cache / "zoo" / "small" / "small.pt"
    assert get().read_bytes() == weights


def test_a_large_file_comes_after_the_question(web, file, get, weights):
    web["/uc"] = question(web, file)
    web["/download"] = file(content=weights)
    assert get().read_bytes() == weights
    assert web.asked[-1][0] == "/download?authuser=0&id=ID%261&export=download&confirm=t&uuid=1234"


def test_cookies_of_the_question_are_returned(web, file, get, weights):
    def asks(handler):
        page_with_cookie = page(file, QUESTION % (web.url("/download").encode(), b"1"))
        file(**vars(page_with_cookie) | {"headers": {"Set-Cookie": "NID=secret"}})(handler)

    web["/uc"], web["/download"] = asks, file(content=weights)
    get()
    assert web.asked[-1][1]["cookie"] == "NID=secret"


def test_an_interrupted_file_goes_on_although_its_address_changed(web, file, get, weights):
    web["/uc"] = [question(web, file, b"1"), question(web, file, b"2")]
    half = len(weights) // 2
    web["/download"] = [file(content=weights, stop_after=half), file(content=weights)]
    assert get().read_bytes() == weights
    assert web.asked[-1][1]["range"] == f"bytes={half}-"
    assert "uuid=2" in web.asked[-1][0]


def test_the_question_too_is_asked_again_when_the_server_is_busy(web, file, status, get, weights, waits, cache):
    web["/uc"] = [status(503), question(web, file)]
    web["/download"] = file(content=weights)
    assert get().read_bytes() == weights
    assert waits == [1]
    noted = json.loads((cache / "zoo" / "small" / "small.pt.json").read_text())
    assert noted["url"] == web.url("/uc?export=download&id=ID%261")


def test_other_pages_are_told_by_their_title(web, file, get):
    web["/uc"] = page(file, b"<html><head><title>Google Drive -\n Quota exceeded</title></head></html>")
    with pytest.raises(DownloadError, match="a page instead of the file: Google Drive - Quota exceeded"):
        get()
    web["/uc"] = page(file, b"<html><form id='login' action='/download'><input name='user'></form></html>")
    with pytest.raises(DownloadError, match="no title"):
        get()


def test_a_missing_file(web, get):
    with pytest.raises(DownloadError, match=r"Google Drive ID&1: HTTP 404"):
        get()


def test_the_question_must_lead_to_google(web, file):
    web["/uc"] = page(file, QUESTION % (b"https://evilgoogle.com/download", b"1"))
    with pytest.raises(TransferError, match=r"leads to evilgoogle\.com"):
        google_drive.direct_address("x", opener(lambda url: None))
    web["/uc"] = page(file, QUESTION % (b"https://drive.usercontent.google.com/download", b"1"))
    found = google_drive.direct_address("x", opener(lambda url: None))
    assert found == "https://drive.usercontent.google.com/download?id=ID%261&export=download&confirm=t&uuid=1"


def test_gdown_is_asked_where_it_is_installed_and_we_fail(web, file, get, weights, monkeypatch):
    asked = []

    def fetches(**options):
        asked.append(options)
        Path(options["output"]).write_bytes(weights)
        return options["output"]

    monkeypatch.setattr(downloading, "has_gdown", lambda: True)
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=fetches))
    web["/uc"] = page(file, b"<title>A new kind of question</title>")
    assert get().read_bytes() == weights
    assert asked[0]["id"] == "ID&1"
    get().unlink()
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=lambda **_: None))
    with pytest.raises(DownloadError, match="gdown wrote no file"):
        get()
