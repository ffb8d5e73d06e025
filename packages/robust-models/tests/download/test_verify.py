"""Files of the cache, hashed again."""

import hashlib

import pytest
from robust_models.download import download
from robust_models.entry import Entry
from robust_models.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore:.* is not https and its sha256 is not known")


@pytest.fixture
def entry(web, file, weights):
    web["/w.pt"] = file(content=weights)
    return Entry(name="zoo/small", arch="resnet18", urls=(web.url("/w.pt"),))


def test_sound_changed_and_absent_files(entry, weights, other_weights, cache):
    assert verify(entry) is None
    path = download(entry, allow_http=True)
    found = verify(entry)
    assert (found.name, found.file, found.problem) == ("zoo/small", path, "")
    assert found.sha256 == hashlib.sha256(weights).hexdigest()
    path.write_bytes(other_weights)
    found = verify(entry)
    assert "was recorded for zoo/small" in found.problem
    assert found.sha256 is None
    assert path.read_bytes() == other_weights, "it only looks"
    (cache / "trust.json").unlink()
    assert "when it was downloaded on" in verify(entry).problem
    path.write_bytes(weights[:-100])
    assert "directory at the end of the zip file is missing" in verify(entry).problem
