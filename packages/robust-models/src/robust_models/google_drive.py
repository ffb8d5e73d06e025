"""Files on Google Drive, which asks before it gives large ones out: no virus scan, download anyway?"""

import importlib
import importlib.util
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit
from urllib.request import OpenerDirector

from robust_models.connection import TransferError, open_url

_ADDRESS = "https://drive.google.com/uc?export=download&id={}"
_HOSTS = ("google.com", "googleusercontent.com")


class PageError(TransferError):
    """Google Drive shows a page that is not understood, instead of the file."""


def page_address(file_id: str) -> str:
    """Return the address that names a file lastingly, and at which Drive may ask before it gives the file out."""
    return _ADDRESS.format(quote(file_id))


def direct_address(file_id: str, connection: OpenerDirector) -> str:
    """Return the address that gives the file itself, having answered the question whether to download it anyway.

    Raises:
        PageError: if Drive answers with another page: too many downloads lately, no permission.
        TransferError: if it does not answer, or there is no such file.
    """
    address = page_address(file_id)
    with open_url(connection, address) as response:
        if response.headers.get_content_type() != "text/html":
            return address
        page = _Page()
        page.feed(response.read(1 << 20).decode(errors="replace"))
        target = urljoin(response.url, page.action)
        host, asked = urlsplit(target).hostname or "", urlsplit(response.url).hostname
    if not page.action:
        raise PageError(f"Google Drive shows a page instead of the file: {' '.join(page.title.split()) or 'no title'}")
    if host != asked and not any(host == known or host.endswith(f".{known}") for known in _HOSTS):
        raise PageError(f"Google Drive leads to {host}, which is not Google's")
    plain, _, query = target.partition("?")
    return f"{plain}?{urlencode(dict(parse_qsl(query)) | page.fields)}"


def has_gdown() -> bool:
    """Whether the package gdown is installed, which follows the changes of Google's pages."""
    return importlib.util.find_spec("gdown") is not None


def fetch_with_gdown(file_id: str, part: Path) -> None:
    """Let gdown write the file to `part`.

    Raises:
        TransferError: if it could not.
    """
    gdown = importlib.import_module("gdown")
    try:
        written = gdown.download(id=file_id, output=str(part), quiet=True)
    except Exception as error:  # its own kinds of error differ between its versions
        raise TransferError(f"gdown: {error}") from error
    if not written or not part.is_file():
        raise TransferError("gdown wrote no file")


class _Page(HTMLParser):
    """The form that asks whether to download anyway, and the title."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.title = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and given.get("id") == "download-form":
            self.action = given.get("action", "")
            self._inside = "form"
        elif tag == "input" and self._inside == "form" and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")
        elif tag == "title":
            self._inside = "title"

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data
