"""What the command's own test does not reach."""

import hashlib
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from utils import download
from utils.download import check_sha256, fetch
from utils.errors import UserError


def test_a_file_that_is_there_is_checked_and_not_fetched(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"abc")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    assert fetch("http://127.0.0.1:9/x.bin", path, sha256=sha256[:8]) == path
    with pytest.raises(UserError, match=f"x.bin: SHA-256 is {sha256}, expected beef"):
        fetch("http://127.0.0.1:9/x.bin", path, sha256="beef")


def test_upper_case_checksums_are_understood(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"abc")
    check_sha256(path, hashlib.sha256(b"abc").hexdigest().upper())


@pytest.mark.parametrize(
    ("sha256", "said"), [("ab" * 32, rf"\(SHA-256 {'ab' * 32}\)"), ("ab12", r"\(SHA-256 ab12...\)")]
)
def test_a_file_that_cannot_be_fetched_is_named_with_all_that_is_known(tmp_path, sha256, said):
    path = tmp_path / "x.bin"
    with pytest.raises(UserError, match=f"copy the file {said} to {path}"):
        fetch("http://127.0.0.1:9/x.bin", path, sha256=sha256)


def test_a_disk_that_is_too_full(tmp_path):
    too_much = shutil.disk_usage(tmp_path).free * 2
    with pytest.raises(UserError, match="bytes are free"):
        fetch("http://127.0.0.1:9/x.bin", tmp_path / "x.bin", size=too_much)


def test_two_at_once_fetch_it_once(tmp_path, monkeypatch):
    both, fetched = threading.Barrier(2), []

    def slowly(url, part):
        fetched.append(url)
        time.sleep(0.02)
        part.write_bytes(b"abc")

    def one(_):
        both.wait()
        return fetch("http://127.0.0.1:9/x.bin", tmp_path / "x.bin", sha256=sha256).read_bytes()

    monkeypatch.setattr(download, "_download", slowly)
    sha256 = hashlib.sha256(b"abc").hexdigest()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(2))) == [b"abc", b"abc"]
    assert len(fetched) == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"cannot be downloaded \(.*Not a directory.*or copy the file"
    ):
        fetch("http://127.0.0.1:9/x.bin", tmp_path / "file" / "folder" / "x.bin")


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://host/x", "data:,x", "/etc/hostname"]
)
def test_only_web_addresses_are_downloaded(tmp_path, url):
    with pytest.raises(UserError, match="only http and https addresses are downloaded"):
        fetch(url, tmp_path / "x")
    assert not list(tmp_path.iterdir())
