"""Downloads of single files: with a progress bar, resumable, checked by SHA-256."""

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
    """Downloads the file at ``url`` to ``path``, unless it exists already.

    An interrupted download is kept in ``path`` + ``.part``, and the next call resumes it. The file
    gets its name only if its checksum is right. Of several processes one downloads, and the others
    wait.

    Args:
        url: Address, http or https.
        path: The file, perhaps in the user's folder ``~``; its folder is made if needed.
        sha256: Its SHA-256, or the first digits of it; empty: not checked.
        size: Number of bytes, to refuse the download early if the disk is too full; ``None``:
            unknown.

    Returns:
        ``path``.

    Raises:
        UserError: If the server cannot be reached or ends the connection early, if the disk is too
            full or the folder cannot be written, if the user has no folder, or if the checksum is
            wrong.
    """
    if not url.startswith(("http://", "https://")):  # others read files of this machine
        raise UserError(f"{url}: only http and https addresses are downloaded")
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{path}: downloads are kept here, but the folder of this user is not known; set HOME"
        ) from error
    if path.is_file():
        check_sha256(path, sha256)
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            if not path.exists():  # otherwise another process has downloaded it
                _check_space(part, size)
                _download(url, part)
                _name(part, path, sha256)
    except (OSError, ValueError, http.client.HTTPException) as error:
        kept = f"; {part.stat().st_size:,} bytes are kept in {part}" if part.exists() else ""
        rest = "..." if len(sha256) < 64 else ""  # of some only the first digits are known
        digest = f" (SHA-256 {sha256}{rest})" if sha256 else ""
        raise UserError(
            f"{url}: cannot be downloaded ({_reason(error)}){kept}; run the command again to "
            f"resume, or copy the file{digest} to {path}"
        ) from error
    return path


def _name(part: Path, path: Path, sha256: str) -> None:
    """Renames the downloaded file if its checksum is right."""
    try:
        check_sha256(part, sha256)
    except UserError:
        part.unlink()  # otherwise each further call would resume the wrong file
        raise
    part.replace(path)


def check_sha256(path: Path, sha256: str) -> None:
    """Raises UserError if the SHA-256 of ``path`` does not start with ``sha256``."""
    try:
        digest = sha256_of(path) if sha256 else ""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not digest.startswith(sha256.lower()):
        raise UserError(
            f"{path}: SHA-256 is {digest}, expected {sha256}; the file is damaged or another one: "
            "delete it and download it again"
        )


def _download(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the file is complete already
            return
        raise
    with response:
        if response.status != 206:  # the server cannot resume: start again
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
                raise OSError(f"the server stopped after {file.tell():,} of {total:,} bytes")


def _check_space(part: Path, size: int | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if size is not None and free < size - have:
        raise UserError(f"{part.parent}: {free:,} bytes are free, {size - have:,} are needed")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__
