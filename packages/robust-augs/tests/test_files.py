from pathlib import Path

import torch
from robust_augs._files import write_whole
from robust_augs._record import digest_of_names, digest_of_numbers
from torch import nn


def test_two_writers_of_one_file_never_share_their_parts(tmp_path, monkeypatch):
    """Also not where the number of the process is the same, as on two machines it may be."""
    parts, real = [], Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: parts.append(path) or real(path, content))
    for content in (b"one", b"two"):
        write_whole(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert len(set(parts)) == 2
    assert {part.parent for part in parts} == {tmp_path}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_name_of_full_length_can_be_written(tmp_path):
    write_whole(tmp_path / ("a" * 255), b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["a" * 255]


class Shifted(nn.Module):
    """With a buffer that `state_dict()` lacks."""

    def __init__(self, mean):
        super().__init__()
        self.layer = nn.Linear(2, 3, bias=False)
        nn.init.ones_(self.layer.weight)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)


def test_numbers_shapes_types_and_places_make_the_digest():
    zeros = torch.zeros(2, 3)
    others = [zeros.T, zeros.int(), zeros + 1e-3, Shifted(0.0), Shifted(1.0), Shifted(0.0).half()]
    digests = [digest_of_numbers(part) for part in (zeros, *others)]
    assert len(set(digests)) == len(digests)
    assert digest_of_numbers(zeros, Shifted(0.0)) != digest_of_numbers(Shifted(0.0), zeros)
    assert digest_of_numbers(Shifted(1.0)) == digest_of_numbers(Shifted(1.0))
    assert digest_of_numbers(zeros.bfloat16()) == digest_of_numbers(torch.zeros(3, 2).bfloat16().T)


def test_names_and_their_order_make_the_digest():
    lists = (["a", "b"], ["b", "a"], ["ab"], ["a/b"], ["a"], ["a", "\udcff"])
    digests = [digest_of_names(map(Path, names)) for names in lists]
    assert len(set(digests)) == len(digests)
