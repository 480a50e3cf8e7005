"""Archives are unpacked inside of their folder, on each Python 3.11."""

import io
import tarfile

import pytest

from lamkit.errors import UserError
from lamkit.files import unpack


@pytest.fixture(params=["with filters", "without filters"])
def python(request, monkeypatch):
    """Python since 3.11.4 filters archives, Debian 12's 3.11.2 does not."""
    if request.param == "without filters":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


def archive(path, name, *, kind=tarfile.REGTYPE, linkname=""):
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size = kind, linkname, 4 * (kind == tarfile.REGTYPE)
        tar.addfile(entry, io.BytesIO(b"text"))
    return path


def test_a_file_lands_in_the_folder(python, tmp_path):
    unpack(archive(tmp_path / "a.tar", "part/one.txt"), tmp_path / "out")
    assert (tmp_path / "out/part/one.txt").read_text() == "text"


def test_a_folder_that_was_packed_from_within_comes_out(python, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/one.txt").write_text("text")
    (tmp_path / "in/two.txt").symlink_to("one.txt")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "in", ".")
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert (tmp_path / "out/two.txt").read_text() == "text"


@pytest.mark.parametrize(
    ("name", "kind", "linkname"),
    [
        ("../one.txt", tarfile.REGTYPE, ""),
        ("part", tarfile.SYMTYPE, "../.."),
        ("part", tarfile.LNKTYPE, "../one.txt"),
        ("part", tarfile.FIFOTYPE, ""),
    ],
)
def test_nothing_is_written_outside_of_it(python, tmp_path, name, kind, linkname):
    (tmp_path / "one.txt").write_text("mine")
    with pytest.raises(UserError, match=r"a\.tar: .*"):
        unpack(archive(tmp_path / "a.tar", name, kind=kind, linkname=linkname), tmp_path / "out")
    assert (tmp_path / "one.txt").read_text() == "mine"
