"""Fetching one large file: with progress, resumable, and checked."""

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from utils.errors import UserError
from utils.lock import locked

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, path: Path, *, sha256: str = "", size: int | None = None) -> Path:
    """The file at ``url``, downloaded to ``path`` unless it is there already.

    What has arrived is kept in ``path`` + ``.part``, and a second call goes on from there. The
    file gets its name only after its checksum was found right. Of several processes one downloads
    and the others wait.

    Args:
        url: Where it comes from, http or https.
        path: Where it goes; folders are made.
        sha256: What its SHA-256 must start with; empty: not checked.
        size: Bytes to expect, to refuse a disk that is too full; ``None``: unknown.

    Raises:
        UserError: If the server cannot be reached or breaks off, if the disk is too full or the
            folder cannot be written, or if the checksum is wrong.
    """
    if path.exists():
        check_sha256(path, sha256)
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            if not path.exists():  # else another process has fetched it meanwhile
                _check_space(part, size)
                _download(url, part)
                _name(part, path, sha256)
    except (OSError, http.client.HTTPException) as error:
        kept = f"; {part.stat().st_size:,} bytes are kept in {part}" if part.exists() else ""
        rest = "..." if len(sha256) < 64 else ""  # some are known by their first digits only
        known = f" (SHA-256 {sha256}{rest})" if sha256 else ""
        raise UserError(
            f"{url}: cannot be downloaded ({_reason(error)}){kept}; run the command again to go "
            f"on, or put the file{known} at {path} by other means"
        ) from error
    return path


def _name(part: Path, path: Path, sha256: str) -> None:
    """Gives what has arrived its name, if it is the right thing."""
    try:
        check_sha256(part, sha256)
    except UserError:
        part.unlink()  # a wrong beginning would be resumed for ever
        raise
    part.replace(path)


def check_sha256(path: Path, sha256: str) -> None:
    """Raises UserError if the SHA-256 of ``path`` does not start with ``sha256``."""
    if sha256 and not (found := sha256_of(path)).startswith(sha256.lower()):
        raise UserError(
            f"{path}: SHA-256 is {found}, expected {sha256}; the file is damaged or another one: "
            "delete it and fetch it again"
        )


def _download(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send: all of it is here
            return
        raise
    with response:
        if response.status != 206:  # the server does not resume: from the start
            have = 0
        left = response.headers.get("Content-Length")
        total = have + int(left) if left else None
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            if total is not None and file.tell() < total:
                raise OSError(f"the server broke off at {file.tell():,} of {total:,} bytes")


def _check_space(part: Path, size: int | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if size is not None and free < size - have:
        raise UserError(f"{part.parent}: {free:,} bytes are free, {size - have:,} are needed")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__
