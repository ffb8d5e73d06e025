"""Open an address of the web, through proxies and redirects, and tell lasting failures from passing ones."""

import http.client
import socket
import ssl
from collections.abc import Callable
from http.cookiejar import CookieJar
from importlib.metadata import version
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import BaseHandler, HTTPCookieProcessor, OpenerDirector, Request, build_opener

TIMEOUT = 30.0  # seconds without a byte
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers of HTTP that may be another one in a moment


class TransferError(OSError):
    """An address gave no file."""


class PassingError(TransferError):
    """The next try may succeed; `wait` is how long the server asks to wait for it, in seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class RangeError(PassingError):
    """The file has no bytes from there on."""


def opener(permitted: Callable[[str], None]) -> OpenerDirector:
    """Return what opens addresses: through the proxies of the environment, with cookies, following redirects.

    Args:
        permitted: raises for an address that must not be opened; asked for every one, also those of redirects.
    """

    class Permission(BaseHandler):
        def http_request(self, request: Request) -> Request:
            permitted(request.full_url)
            return request

        https_request = ftp_request = http_request

    made = build_opener(Permission, HTTPCookieProcessor(CookieJar()))
    made.addheaders = [("User-Agent", f"robust-models/{version('robust-models')}"), ("Accept-Encoding", "identity")]
    return made


def open_url(connection: OpenerDirector, request: Request | str) -> Any:
    """Open an address; whatever goes wrong is a `TransferError`."""
    try:
        return connection.open(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        message = f"HTTP {error.code} {error.reason}"
        if error.code == 416:
            raise RangeError(message) from error
        if error.code in _PASSING:
            raise PassingError(message, _seconds(error.headers.get("Retry-After", ""))) from error
        raise TransferError(message) from error
    except URLError as error:
        lasting = isinstance(error.reason, ssl.SSLCertVerificationError) or (
            isinstance(error.reason, socket.gaierror) and error.reason.errno == socket.EAI_NONAME
        )
        raise (TransferError if lasting else PassingError)(f"no connection: {error.reason}") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise TransferError(f"no proper address: {error}") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise PassingError(f"no answer: {type(error).__name__} {error}") from error


def _seconds(text: str) -> float:
    """`Retry-After` in seconds, 0 where it is none (or a date, which is rare)."""
    return float(text) if text.strip().isdecimal() else 0.0
