"""One file out of an archive, and archives that no honest author makes."""

import io
import tarfile
import zipfile

import pytest
from robust_models.archives import archive_member, extract_member
from robust_models.entry import Entry


def tar(file, members, kind="w:gz"):
    with tarfile.open(file, kind) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def zipped(file, members):
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


WRITERS = pytest.mark.parametrize("write", [tar, zipped])


@WRITERS
@pytest.mark.parametrize("name", ["b.pth", "models/b.pth", "./models/deep/b.pth"])
def test_one_member_is_taken_from_wherever_it_lies(write, name, tmp_path):
    write(tmp_path / "a", {"models/a.pth": b"a", name: b"b", "xb.pth": b"x"})
    extract_member(tmp_path / "a", "b.pth", tmp_path / "out.pth")
    assert (tmp_path / "out.pth").read_bytes() == b"b"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out.pth"]


@WRITERS
@pytest.mark.parametrize("name", ["../b.pth", "/etc/b.pth", "models/../../b.pth", "..\\b.pth", "C:\\b.pth", "\\b.pth"])
def test_a_member_that_leads_out_spoils_the_whole_archive(write, name, tmp_path):
    write(tmp_path / "a", {"b.pth": b"b", name: b"bad"})
    with pytest.raises(ValueError, match=r"leads out of its folder, and is refused"):
        extract_member(tmp_path / "a", "b.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@WRITERS
@pytest.mark.parametrize("members", [{"a.pth": b"a"}, {"x/b.pth": b"1", "y/b.pth": b"2"}, {}], ids=["none", "two", "0"])
def test_there_must_be_exactly_one(write, members, tmp_path):
    write(tmp_path / "a", members)
    with pytest.raises(ValueError, match=rf"has {sum('b.pth' in name for name in members)} files called b\.pth"):
        extract_member(tmp_path / "a", "b.pth", tmp_path / "out.pth")


def test_a_link_is_no_file(tmp_path):
    with tarfile.open(tmp_path / "a", "w") as archive:
        link = tarfile.TarInfo("b.pth")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    with pytest.raises(ValueError, match="has 0 files"):
        extract_member(tmp_path / "a", "b.pth", tmp_path / "out.pth")


@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_a_damaged_archive(kind, tmp_path):
    tar(tmp_path / "a", {"b.pth": bytes(range(256)) * 100}, kind)
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        extract_member(tmp_path / "a", "b.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("note", "member"),
    [
        ("one archive with several files; member RobNet_free_cifar10.pth.tar", "RobNet_free_cifar10.pth.tar"),
        ("an archive: member deep/b.pth. Trained twice.", "deep/b.pth"),
        ("a member of the family", None),
        (None, None),
    ],
)
def test_the_note_of_an_entry_names_the_member(note, member):
    assert archive_member(Entry(name="zoo/small", arch="resnet18", note=note)) == member
