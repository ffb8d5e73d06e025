"""The record of checksums, which several processes write."""

import threading

import pytest
from robust_models.trust import Trusted, trust, trusted


def record(digit):
    return Trusted(sha256=digit * 64, url="https://weights.example/w.pt", date="2025-01-01T00:00:00+00:00")


def test_what_is_recorded_is_found_again(cache):
    assert trusted("zoo/a") is None
    trust("zoo/a", record("1"))
    trust("zoo/b", record("2"))
    trust("zoo/a", record("3"))
    assert trusted("zoo/a") == record("3")
    assert trusted("zoo/b") == record("2")
    assert trusted("zoo/c") is None
    assert sorted(path.name for path in cache.iterdir()) == ["trust.json", "trust.json.lock"]


def test_records_made_at_once_are_all_kept():
    threads = [threading.Thread(target=trust, args=(f"zoo/{n}", record(str(n)))) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [trusted(f"zoo/{n}") for n in range(10)] == [record(str(n)) for n in range(10)]


@pytest.mark.parametrize("text", ["{", "[]", '{"zoo/a": {"sha256": "1"}}', '{"zoo/a": 1}', "\x00"])
def test_a_damaged_record_is_not_taken_for_an_empty_one(text, cache):
    cache.mkdir()
    (cache / "trust.json").write_text(text)
    with pytest.raises(ValueError, match=r"trust\.json is damaged"):
        trusted("zoo/a")
    with pytest.raises(ValueError, match=r"trust\.json is damaged"):
        trust("zoo/b", record("1"))
    assert (cache / "trust.json").read_text() == text
