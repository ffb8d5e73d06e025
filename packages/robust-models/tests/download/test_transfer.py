"""One address into one file: interrupted, resumed, restarted, given up."""

import functools
import socket
import threading

import pytest
from robust_models import connection
from robust_models.connection import TransferError, opener
from robust_models.transfer import fetch

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def part(tmp_path):
    return tmp_path / "w.pt.part"


@pytest.fixture
def get(web, part, waits):
    """Fetch from the server into the part."""
    return lambda path="/w.pt", **options: fetch(
        web.url(path), part, opener(lambda url: None), sleep=waits.append, **options
    )


def ranges(web):
    return [headers.get("range") for _, headers in web.asked]


def test_a_whole_file_and_its_version(web, file, get, part, long_ago):
    web["/w.pt"] = file(content=CONTENT, etag='"a"', modified=long_ago)
    seen = []
    version = get(report=lambda done, total: seen.append((done, total)))
    assert part.read_bytes() == CONTENT
    assert (version.etag, version.modified, version.size) == ('"a"', long_ago, len(CONTENT))
    assert version.content_type == "application/octet-stream"
    assert version.url == web.url("/w.pt")
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    headers = web.asked[0][1]
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("robust-models/")


@pytest.mark.parametrize("etag", ['"a"', ""], ids=["etag", "only modified"])
def test_an_interrupted_transfer_goes_on_where_it_stopped(etag, web, file, get, part, waits, long_ago):
    whole = file(content=CONTENT, etag=etag, modified=long_ago)
    web["/w.pt"] = [file(content=CONTENT, etag=etag, modified=long_ago, stop_after=30_000), whole]
    get()
    assert part.read_bytes() == CONTENT
    assert ranges(web) == [None, "bytes=30000-"]
    assert web.asked[1][1]["if-range"] == (etag or long_ago)
    assert waits == [1]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(web, file, get, part):
    web["/w.pt"] = [file(content=CONTENT, stop_after=30_000), file(content=CONTENT)]
    with pytest.raises(TransferError, match=f"ended after 30000 of {len(CONTENT)} bytes; 30000 bytes are kept"):
        get(attempts=1)
    get(attempts=1)
    assert part.read_bytes() == CONTENT
    assert ranges(web) == [None, "bytes=30000-"]


@pytest.mark.parametrize(
    "second",
    [
        {"ranges": False},
        {"etag": '"other"', "content": CONTENT[::-1]},
        {"headers": {"Content-Range": f"bytes 20000-99999/{len(CONTENT)}"}},
        {"headers": {"Content-Range": "bytes 30000-99999/100001"}},
        {"headers": {"ETag": '"other"'}, "content": CONTENT[::-1]},
        {"headers": {"Content-Range": "nonsense"}},
    ],
    ids=["no ranges", "changed", "other start", "other size", "other version in spite of If-Range", "nonsense"],
)
def test_it_starts_anew_where_it_cannot_go_on(second, web, file, get, part):
    last = file(**({"content": CONTENT} | second | {"headers": {}}))
    web["/w.pt"] = [file(content=CONTENT, stop_after=30_000), file(**({"content": CONTENT} | second)), last]
    get()
    assert part.read_bytes() == last.content
    assert ranges(web)[1] == "bytes=30000-"


def test_a_version_that_cannot_be_told_from_others_is_not_continued(web, file, get, part):
    weak = functools.partial(file, content=CONTENT, etag='W/"a"')
    web["/w.pt"] = [weak(stop_after=30_000), weak()]
    get()
    assert part.read_bytes() == CONTENT
    assert ranges(web) == [None, None]


def test_a_part_of_another_address_or_without_its_note_is_not_continued(web, file, get, part):
    web["/w.pt"] = [file(content=CONTENT, stop_after=30_000), file(content=CONTENT)]
    web["/v.pt"] = [file(content=CONTENT[::-1], stop_after=20_000), file(content=CONTENT[::-1])]
    with pytest.raises(TransferError):
        get(attempts=1)
    with pytest.raises(TransferError):
        get("/v.pt", attempts=1)
    part.with_name("w.pt.part.json").write_text("{")
    get("/v.pt")
    assert part.read_bytes() == CONTENT[::-1]
    assert ranges(web) == [None, None, None]


def test_a_whole_part_is_not_asked_for_again(web, file, get, part):
    web["/w.pt"] = file(content=CONTENT)
    first = get()
    assert get() == first
    assert len(web.asked) == 1


def test_a_file_that_became_shorter_starts_anew(web, file, status, get, part):
    short = file(content=CONTENT[:100])
    web["/w.pt"] = [file(content=CONTENT, length=None, stop_after=30_000), status(416), short]
    get()  # without a length, the end of the connection is the end of the file
    get()
    assert part.read_bytes() == CONTENT[:100]


def test_passing_errors_are_tried_again_after_growing_waits(web, file, status, get, part, waits):
    web["/w.pt"] = [status(503), status(429), status(500), status(408), file(content=CONTENT)]
    get()
    assert part.read_bytes() == CONTENT
    assert waits == [1, 2, 4, 8]


def test_the_server_says_how_long_to_wait(web, file, status, get, waits):
    web["/w.pt"] = [status(503, {"Retry-After": "7"}), status(503, {"Retry-After": "soon"}), file(content=CONTENT)]
    get()
    assert waits == [7, 2]
    web["/w.pt"] = status(503, {"Retry-After": "3600"})
    with pytest.raises(TransferError, match="HTTP 503"):
        get("/w.pt", identity="again")
    assert waits == [7, 2]


def test_it_gives_up_after_some_tries(web, status, get, part, waits):
    web["/w.pt"] = status(503)
    with pytest.raises(TransferError, match=r"HTTP 503 Service Unavailable$"):
        get()
    assert waits == [1, 2, 4, 8]
    assert not part.exists()


def test_tries_that_bring_more_bytes_do_not_count(web, file, get, part, waits):
    web["/w.pt"] = [file(content=CONTENT, stop_after=5_000)] * 12 + [file(content=CONTENT)]
    get(attempts=2)
    assert part.read_bytes() == CONTENT
    assert waits == [1] * 12
    assert ranges(web)[-1] == "bytes=60000-"


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_lasting_errors_are_not_tried_again(code, web, status, get, waits):
    web["/w.pt"] = status(code)
    with pytest.raises(TransferError, match=f"HTTP {code}"):
        get()
    assert len(web.asked) == 1
    assert waits == []


def test_a_length_that_is_never_reached(web, file, get, part, waits):
    web["/w.pt"] = file(content=CONTENT, length=len(CONTENT) + 5)
    with pytest.raises(TransferError, match=f"{len(CONTENT)} of {len(CONTENT) + 5} bytes"):
        get(attempts=3)
    assert part.read_bytes() == CONTENT


def test_a_body_in_chunks_that_breaks_off(web, file, get, part, waits):
    def broken(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        handler.wfile.write(b"400\r\n" + CONTENT[:1024] + b"\r\n400\r\n" + CONTENT[1024:1030])
        handler.close_connection = True

    web["/w.pt"] = [broken, file(content=CONTENT)]
    get()
    assert part.read_bytes() == CONTENT
    assert len(waits) == 1


def test_what_was_compressed_on_the_way_is_refused(web, file, get):
    web["/w.pt"] = file(content=CONTENT, headers={"Content-Encoding": "gzip"})
    with pytest.raises(TransferError, match=r"compressed \(gzip\)"):
        get()


def test_redirects_are_followed_with_the_range(web, file, status, get, part):
    web["/w.pt"] = status(302, {"Location": "/there.pt"})
    web["/there.pt"] = [file(content=CONTENT, stop_after=30_000), file(content=CONTENT)]
    assert get().url == web.url("/w.pt")
    assert part.read_bytes() == CONTENT
    assert [path for path, _ in web.asked] == ["/w.pt", "/there.pt"] * 2
    assert ranges(web)[-1] == "bytes=30000-"


@pytest.mark.parametrize("target", ["/there.pt", "ftp://127.0.0.1/w.pt", "file:///etc/hostname"])
def test_every_redirect_has_to_be_permitted(target, web, file, status, part):
    web["/w.pt"] = status(302, {"Location": target})
    web["/there.pt"] = file(content=CONTENT)

    def permitted(url):
        if not url.endswith(web.url("/w.pt")):
            raise TransferError(f"not {url}")

    with pytest.raises(TransferError, match=r"not|HTTP 302"):
        fetch(web.url("/w.pt"), part, opener(permitted))
    assert len(web.asked) == 1
    assert not part.exists()


def test_redirects_in_a_circle_end(web, status, get):
    web["/w.pt"] = status(302, {"Location": "/w.pt"})
    with pytest.raises(TransferError, match="HTTP 302"):
        get()


def test_proxies_of_the_environment_are_used(web, file, part, monkeypatch):
    monkeypatch.setenv("http_proxy", web.address)
    web["/w.pt"] = file(content=CONTENT)
    fetch("http://weights.example/w.pt", part, opener(lambda url: None))
    assert web.asked[0][0] == "http://weights.example/w.pt"
    assert part.read_bytes() == CONTENT


def test_a_server_that_says_nothing(web, file, get, part, waits, monkeypatch):
    monkeypatch.setattr(connection, "TIMEOUT", 0.2)
    done = threading.Event()
    web["/w.pt"] = lambda handler: done.wait(20)
    with pytest.raises(TransferError, match="timed out"):
        get(attempts=2)
    assert waits == [1]
    done.set()


def test_a_server_that_stops_in_the_middle_without_hanging_up(web, file, get, part, waits, monkeypatch):
    monkeypatch.setattr(connection, "TIMEOUT", 0.2)
    done = threading.Event()

    def stalls(handler):
        file(content=CONTENT, stop_after=30_000)(handler)
        handler.wfile.flush()
        done.wait(20)

    web["/w.pt"] = [stalls, file(content=CONTENT)]
    get()
    done.set()
    assert part.read_bytes() == CONTENT
    assert ranges(web) == [None, "bytes=30000-"]


@pytest.mark.parametrize("address", ["http://a b/w.pt", "http://127.0.0.1:port/w.pt", "http://127.0.0.1/w\n.pt"])
def test_an_address_that_is_none(address, part, waits):
    with pytest.raises(TransferError, match="no proper address"):
        fetch(address, part, opener(lambda url: None), sleep=waits.append)
    assert waits == []


def test_nobody_listens(part, waits):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/w.pt"
        with pytest.raises(TransferError, match=r"no connection: .*refused"):
            fetch(address, part, opener(lambda url: None), sleep=waits.append)
    assert waits == [1, 2, 4, 8]


def test_an_unknown_host_is_not_tried_again(part, waits, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TransferError, match="Name or service not known"):
        fetch("http://weights.example/w.pt", part, opener(lambda url: None), sleep=waits.append)
    assert waits == []


def test_what_goes_wrong_on_this_machine_is_not_taken_for_the_network(web, file, get, waits):
    web["/w.pt"] = file(content=CONTENT)

    def full(done, total):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        get(report=full)
    assert waits == []
