"""Tar files: nothing is lost in silence, and any member is read by itself."""

import gzip
import io
import os
import pickle
import tarfile

import pytest
from robust_bench.datasets.tar_file import Member, TarReader, tar_members

CONTENTS = {"a/1.jpg": b"x" * 700, "a/1.cls": b"5", f"{'long' * 40}/2.jpg": b"y" * 512, "a/empty.txt": b""}


def pack(path, contents=CONTENTS, form=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in contents.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


def contents(path):
    reader = TarReader()
    found = {member.name: reader.read(path, member.offset, member.size) for member in tar_members(path)}
    reader.close()
    return found


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_where_they_are(tmp_path, form):
    assert contents(pack(tmp_path / "x.tar", form=form)) == CONTENTS


def test_folders_are_no_members_and_here_is_no_folder(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "1.jpg").write_bytes(b"x")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "in", "./")
    assert contents(tmp_path / "x.tar") == {"a/1.jpg": b"x"}


def test_wherever_it_is_cut_it_is_an_error_or_complete(tmp_path):
    whole = pack(tmp_path / "x.tar").read_bytes()
    end = max(member.offset + member.size for member in tar_members(tmp_path / "x.tar"))
    complete = end + -end % 512 + 512  # to the end of its last member's block, and one of zeros
    for length in (*range(0, len(whole), 97), *range(512, len(whole), 512)):
        cut = tmp_path / f"{length}.tar"
        cut.write_bytes(whole[:length])
        if length >= complete:
            assert contents(cut) == CONTENTS
        else:
            with pytest.raises(ValueError, match=rf"{length}\.tar"):
                tar_members(cut)


def test_a_changed_byte_in_a_header_is_an_error_or_changes_nothing(tmp_path):
    whole = pack(tmp_path / "x.tar").read_bytes()
    expected = tar_members(tmp_path / "x.tar")
    headers = [member.offset - 512 for member in expected]
    found = []
    for number, place in enumerate(header + offset for header in headers for offset in range(0, 512, 3)):
        changed = bytearray(whole)
        changed[place] ^= 0x11
        file = tmp_path / f"{number}.tar"
        file.write_bytes(bytes(changed))
        found.append(listed_or_error(file))
    assert all(each == expected or f"/{number}.tar" in str(each) for number, each in enumerate(found))
    assert sum(each != expected for each in found) > 600


def listed_or_error(file):
    try:
        return tar_members(file)
    except ValueError as error:
        return error


def test_joined_files_would_lose_all_but_the_first(tmp_path):
    whole = pack(tmp_path / "x.tar").read_bytes()
    (tmp_path / "joined.tar").write_bytes(whole + whole)
    with pytest.raises(ValueError, match=r"joined\.tar goes on after its end"):
        tar_members(tmp_path / "joined.tar")


def test_padding_of_any_length_is_fine(tmp_path):
    whole = pack(tmp_path / "x.tar").read_bytes()
    (tmp_path / "padded.tar").write_bytes(whole + bytes(100_000))
    assert tar_members(tmp_path / "padded.tar") == tar_members(tmp_path / "x.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused_by_name(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        about = tarfile.TarInfo("a/link.jpg")
        about.type, about.linkname = kind, "a/1.jpg"
        archive.addfile(about)
    with pytest.raises(ValueError, match=r"x\.tar holds a/link\.jpg, which is a link"):
        tar_members(tmp_path / "x.tar")


def test_compressed_and_other_files_are_refused(tmp_path):
    whole = pack(tmp_path / "x.tar").read_bytes()
    for name, content in (("zipped.tar", gzip.compress(whole)), ("empty.tar", b""), ("other.tar", b"text" * 500)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"cannot read the tar file .*{name}"):
            tar_members(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tar"):
        tar_members(tmp_path / "nowhere.tar")


def test_a_file_that_changes_is_looked_at_again(tmp_path):
    first = tar_members(pack(tmp_path / "x.tar", {"a": b"1"}))
    assert tar_members(tmp_path / "x.tar") is first
    assert [member.name for member in tar_members(pack(tmp_path / "x.tar", {"a": b"1", "b": b"2" * 20_000}))] == [
        "a",
        "b",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_reader_goes_through_fork_and_pickle(tmp_path):
    path = pack(tmp_path / "x.tar", {str(number): bytes([number]) * 9000 for number in range(50)})
    members, reader = tar_members(path), TarReader()

    def all_right():
        return all(reader.read(path, each.offset, 9000) == bytes([int(each.name)]) * 9000 for each in members * 20)

    reader.read(path, members[3].offset, 1)
    again = pickle.loads(pickle.dumps(reader))
    assert again.read(path, members[7].offset, 9000) == bytes([7]) * 9000
    child = os.fork()
    if not child:  # both go through the file at once, from the handle that is open
        right = all(
            reader.read(path, member.offset, 9000) == bytes([int(member.name)]) * 9000 for member in members * 20
        )
        os._exit(0 if right else 1)
    assert all(reader.read(path, member.offset, 9000) == bytes([int(member.name)]) * 9000 for member in members * 20)
    assert os.waitpid(child, 0)[1] == 0
    reader.close()
    again.close()


def test_a_file_that_became_shorter_is_an_error_with_its_name(tmp_path):
    path = pack(tmp_path / "x.tar")
    (member, *_) = tar_members(path)
    assert member == Member("a/1.jpg", 512, 700)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"x\.tar ends 212 bytes too early"):
        TarReader().read(path, member.offset, member.size)
