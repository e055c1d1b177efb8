"""The command that checks VisA, writes its list and fetches it."""

import hashlib
import http.server
import json
import subprocess
import sys
import tarfile
import threading

import pytest

from datasets.visa_json import main
from tests.fixtures import write_visa


@pytest.fixture
def visa_json(capsys):
    """Calls the command: exit status, what it says, and what it complains of."""

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out, said.err)

    return call


@pytest.mark.slow
def test_writes_the_list_as_a_program_of_its_own(visa_root):
    arguments = ["--root", str(visa_root), "--objects", "candle"]
    command = [sys.executable, "datasets/visa_json.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "train: 6 normal, 4 anomalous" in done.stdout
    meta = json.loads((visa_root / "meta_2cls_highshot.json").read_text(encoding="utf-8"))
    assert list(meta["test"]) == ["candle"]


def test_writes_nothing_if_a_file_is_missing(visa_root, visa_json):
    (visa_root / "candle/Data/Images/Normal/003.JPG").unlink()
    done = visa_json("--root", visa_root, "--split", "1cls")
    assert done.returncode == 2
    assert "1 of 44 files are missing" in done.stderr
    assert "name the objects that are there" in done.stderr
    assert not list(visa_root.glob("meta_*"))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves one archive; the first answer breaks off half-way, later ones honour ``Range``."""

    content = b""
    answers: list[str] = []  # noqa: RUF012

    def do_GET(self):
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.answers.append(f"from {begin}")
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(self.content) - begin))
        self.end_headers()
        stop = len(self.content) // 2 if len(self.answers) == 1 else None
        self.wfile.write(self.content[begin:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    root = write_visa(tmp_path / "source")
    with tarfile.open(tmp_path / "VisA.tar", "w") as tar:
        tar.add(root, arcname=".")
    Handler.content, Handler.answers = (tmp_path / "VisA.tar").read_bytes(), []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/VisA.tar"
        server.shutdown()


def test_download_breaks_off_is_resumed_checked_and_unpacked(server, tmp_path, visa_json):
    sha256 = hashlib.sha256(Handler.content).hexdigest()
    arguments = ["--download", "--root", tmp_path / "new", "--url", server, "--sha256", sha256]
    first = visa_json(*arguments)
    assert first.returncode == 2
    assert "the server stopped after" in first.stderr
    assert "run the command again to resume" in first.stderr
    second = visa_json(*arguments)
    assert second.returncode == 0, second.stderr
    assert Handler.answers == ["from 0", f"from {len(Handler.content) // 2}"]
    assert "train: 12 normal, 8 anomalous" in second.stdout
    assert (tmp_path / "new/meta_2cls_highshot.json").exists()


def test_a_wrong_checksum_is_an_error(server, tmp_path, visa_json):
    Handler.answers.append("not the first answer")
    arguments = ["--download", "--root", tmp_path / "new", "--url", server, "--sha256", "0" * 64]
    done = visa_json(*arguments)
    assert done.returncode == 2
    assert "SHA-256 is" in done.stderr
    assert [p.suffix for p in (tmp_path / "new").iterdir()] == [".lock"]


def test_a_server_that_is_not_there(tmp_path, visa_json):
    done = visa_json("--download", "--root", tmp_path, "--url", "http://127.0.0.1:9/VisA.tar")
    assert done.returncode == 2
    assert "http://127.0.0.1:9/VisA.tar: cannot be downloaded" in done.stderr
