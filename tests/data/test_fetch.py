"""Downloads against a server that breaks off, cannot resume, changes the file, lies, hangs or refuses."""

import hashlib
import io
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from http_server import Site, serve

from lamkit.cli import main
from lamkit.data.fetch.archives import unpack
from lamkit.data.fetch.download import Patience, download
from lamkit.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
QUICK = Patience(timeout=0.5, tries=3, pause=0.01)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_broken_connection_is_taken_up_where_it_broke(tmp_path):
    site = Site(CONTENT, break_after=100_000, breaks=2)
    with serve(site) as url:
        download([url], tmp_path / "data.bin", patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert site.requests == [None, "bytes=100000-", "bytes=200000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(tmp_path):
    site = Site(CONTENT, break_after=100_000, breaks=1)
    with serve(site) as url, pytest.raises(UserError, match="goes on with it"):
        download([url], tmp_path / "data.bin", patience=Patience(0.5, tries=0, pause=0.01))
    assert (tmp_path / "data.bin.part").stat().st_size == 100_000
    with serve(site) as url:
        download([url], tmp_path / "data.bin", patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert site.requests[-1] == "bytes=100000-"


def test_a_server_that_cannot_resume_starts_again_and_nothing_is_doubled(tmp_path):
    site = Site(CONTENT, break_after=100_000, breaks=1, ranges=False)
    with serve(site) as url:
        download([url], tmp_path / "data.bin", patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"v2"', None])
def test_two_versions_of_a_file_are_never_joined(tmp_path, etag):
    """With a tag the server itself starts anew; without one the part is thrown away as the tag is gone."""
    (tmp_path / "data.bin.part").write_bytes(b"old" * 1000)
    (tmp_path / "data.bin.part.json").write_text(json.dumps({"etag": '"v1"', "date": None, "size": 300_000}))
    with serve(Site(CONTENT, etag=etag)) as url:
        download([url], tmp_path / "data.bin", patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_part_that_was_complete_is_finished(tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    (tmp_path / "data.bin.part.json").write_text(json.dumps({"etag": '"v1"', "date": None, "size": 300_000}))
    with serve(Site(CONTENT)) as url:
        download([url], tmp_path / "data.bin", patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (Site(CONTENT, status=404), "404"),
        (Site(CONTENT, status=503), "nothing new in 3 attempts"),
        (Site(CONTENT, hang=1.0), "nothing new in 3 attempts"),
        (Site(CONTENT, announce=400_000), "400000 bytes; the head's YAML says 300000"),
        (Site(CONTENT[:1000]), "1000 bytes; the head's YAML says 300000"),
        (Site(b"<html>please log in</html>", kind="text/html"), "web page"),
    ],
)
def test_where_one_mirror_fails_the_next_is_taken_and_the_reason_said(tmp_path, site, words):
    with serve(site) as bad, serve(Site(CONTENT)) as good:
        with pytest.raises(UserError, match=words):
            download([bad], tmp_path / "data.bin", size=300_000, patience=QUICK)
        download([bad, good], tmp_path / "data.bin", size=300_000, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_length_that_is_too_long_is_not_believed(tmp_path):
    """The connection ends early; asked for the rest, the server says that there is none."""
    with serve(Site(CONTENT, announce=400_000)) as url:
        download([url], tmp_path / "data.bin", patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_nothing_listens_and_the_message_speaks_of_the_proxy(tmp_path):
    with pytest.raises(UserError, match="https_proxy"):
        download(["http://127.0.0.1:9/data.bin"], tmp_path / "data.bin", patience=QUICK)


def test_the_proxy_of_the_environment_is_used(tmp_path, monkeypatch):
    site = Site(CONTENT)
    with serve(site) as proxy:
        monkeypatch.setenv("http_proxy", proxy.rpartition("/")[0])
        monkeypatch.setenv("no_proxy", "")
        download(["http://data.example.org/data.bin"], tmp_path / "data.bin", patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_full_disk_is_seen_before_it_is_full(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=50_000_000))
    with serve(Site(CONTENT)) as url, pytest.raises(UserError, match=r"needs 300 kB more.*50 MB left"):
        download([url], tmp_path / "data.bin", patience=QUICK)


def head(tmp_path, url, **source):
    """A folder of heads with one that is fetched from ``url``."""
    (tmp_path / "heads").mkdir(exist_ok=True)
    facts = {"url": url, **source}
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in facts.items())
    (tmp_path / "heads/far.yaml").write_text(
        f"name: far\nlevel_of_theory: {{method: DFT, functional: PBE}}\nsource:\n{lines}"
    )


def run(capsys, *words):
    code = main(["data", "fetch", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_fetch_checks_the_sum_and_tells_the_next_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serve(Site(CONTENT)) as url:
        head(tmp_path, url, sha256=hashlib.sha256(CONTENT).hexdigest().upper(), format="extxyz")
        code, out, err = run(capsys, "far", "--json")
        assert run(capsys, "far")[0] == 0  # it is here already
    result = json.loads(out)
    assert code == 0
    assert result["verified"] is True
    assert (
        result["next"] == "lamkit data convert downloads/data.bin --format extxyz --head far --out data/far"
    )
    assert result["next"] in err


def test_without_a_sum_in_the_yaml_it_is_computed_and_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serve(Site(CONTENT)) as url:
        head(tmp_path, url)
        code, out, err = run(capsys, "far", "--json")
    assert code == 0
    assert json.loads(out)["verified"] is False
    assert "not verified" in err
    assert hashlib.sha256(CONTENT).hexdigest() in err


def test_another_file_than_was_meant_is_set_aside(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serve(Site(CONTENT)) as url:
        head(tmp_path, url, md5="0" * 32)
        code, _, err = run(capsys, "far")
    assert code == 2
    assert "md5 is" in err
    assert [p.name for p in (tmp_path / "downloads").glob("data*")] == ["data.bin.bad"]


def test_a_bad_sum_after_a_resume_is_fetched_again_from_the_beginning(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/data.bin.part").write_bytes(b"x" * 1000)
    stamp = {"etag": None, "date": None, "size": len(CONTENT)}
    (tmp_path / "downloads/data.bin.part.json").write_text(json.dumps(stamp))
    with serve(Site(CONTENT, etag=None)) as url:
        head(tmp_path, url, sha256=hashlib.sha256(CONTENT).hexdigest())
        assert run(capsys, "far")[0] == 0
    assert (tmp_path / "downloads/data.bin").read_bytes() == CONTENT


def archive(names, kind="tar", link=None):
    """Bytes of an archive with small files of these names."""
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as pack:
            for name in names:
                pack.writestr(name, "hello")
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w:gz") as pack:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 5
            pack.addfile(info, io.BytesIO(b"hello"))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            pack.addfile(info)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_are_unpacked_when_the_head_says_so(tmp_path, capsys, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    with serve(Site(archive(["a/b.txt", "c.txt"], kind))) as url:
        head(tmp_path, url, filename=f"set.{kind}.gz", unpack=True)
        code, out, _ = run(capsys, "far", "--json")
        assert run(capsys, "far")[0] == 0
    assert code == 0
    assert json.loads(out)["path"] == "downloads/set"
    assert (tmp_path / "downloads/set/a/b.txt").read_text() == "hello"


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "C:/evil", "..\\evil"])
def test_members_that_lead_out_of_the_folder_are_refused(tmp_path, kind, name):
    (tmp_path / "x").write_bytes(archive(["good.txt", name], kind))
    with pytest.raises(UserError, match="outside of the folder"):
        unpack(tmp_path / "x", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_links_in_archives_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(archive(["good.txt"], link="/etc/passwd"))
    with pytest.raises(UserError, match="link or device"):
        unpack(tmp_path / "x", tmp_path / "out")


def test_a_truncated_archive_leaves_nothing_behind(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(archive(["a.txt"])[:-20])
    with pytest.raises(UserError, match="broken"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar.gz"]


def test_a_head_without_an_address_says_how_to_get_its_data(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads/near.yaml").write_text(
        "name: near\nlevel_of_theory: {method: DFT, functional: PBE}\nsource: {how: Ask Ann.}\n"
    )
    code, _, err = run(capsys, "near")
    assert code == 2
    assert "Ask Ann." in err
