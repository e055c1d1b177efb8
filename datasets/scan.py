"""Which pictures lie in a folder, and what their folders are called."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NoReturn

from datasets.record import Splits, check_name
from utils.console import say
from utils.errors import UserError

SUFFIXES = (
    ".bmp",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
# What folders of normal and of anomalous pictures are called, where nobody says otherwise.
GOOD = ("good", "normal", "no", "ok")
BAD = (
    "bad",
    "abnormal",
    "anomalous",
    "anomaly",
    "defect",
    "defective",
    "ko",
    "ng",
    "ungood",
    "yes",
)
# What Windows, macOS, network drives (Synology, QNAP) and GoodSync make by themselves, in small
# letters.
_LITTER = (
    "__macosx",
    "_gsdata_",
    "$recycle.bin",
    "#recycle",
    "#snapshot",
    "@appstore",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "@synoeastream",
    "@synoresource",
    "@tmp",
    "desktop.ini",
    "ehthumbs.db",
    "found.000",
    "lost+found",
    "network trash folder",
    "recycled",
    "recycler",
    "system volume information",
    "temporary items",
    "thumbs.db",
)
# Words that name a part of a split, alone or with words that say nothing.
_SPLIT_WORDS = {
    "train": ("train", "training", "trainings"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "tests", "eval", "evaluation", "holdout"),
}
_EMPTY_WORDS = (
    *("data", "dataset", "daten", "files", "folder", "image", "images", "img", "imgs", "photos"),
    *("pictures", "private", "public", "samples", "set", "split", "subset"),
)
_SPLIT_OF = {
    word: split
    for split, words in _SPLIT_WORDS.items()
    for start in words
    for word in (start, *(start + end for end in _EMPTY_WORDS))
}
_OTHER_SENSORS = ("depth", "xyz")
_CONVERT = {
    ".dcm": "DICOM is not read: convert it to PNG of 16 bits (dcm2pnm of DCMTK, or pydicom)",
    ".gif": "GIF is not read: convert it to PNG",
    ".heic": "HEIC is not read: convert it to JPEG",
    ".nii": "NIfTI is not read: convert its slices to PNG",
    ".zip": "archives have to be unpacked",
}


def find_files(root: Path, folder: str = "") -> list[str]:
    """All files below ``root/folder``, relative to ``root``, in alphabetical order.

    Hidden files and what operating systems leave behind do not count.

    Raises:
        UserError: If there is no such folder, or it holds a link to a folder: what is behind it
            may lie anywhere; or if a folder cannot be read, or a file's name is not UTF-8.
    """
    start = root / folder
    if not start.is_dir():
        raise UserError(f"{start}: is no folder; name the folder of the data", option="dir")
    found = []
    for place, folders, files in os.walk(start, onerror=_refuse):
        folders[:] = [name for name in folders if _counts(name)]
        for name in folders:
            if (Path(place) / name).is_symlink():
                raise UserError(
                    f"{Path(place) / name}: is a link to a folder; put the folder itself there"
                )
        found += [(Path(place) / name).relative_to(root) for name in files if _counts(name)]
    paths = sorted(path.as_posix() for path in found)
    for path in paths:
        check_name(path, str(root))
    return paths


def _refuse(error: OSError) -> NoReturn:
    """Raises UserError: a folder that is passed over would make another data set of it."""
    raise UserError(
        f"{error.filename}: cannot be read ({error.strerror}); mend its permissions, or move it "
        "out of the folder of the data"
    ) from error


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _LITTER


def is_picture(path: str) -> bool:
    """Whether the file's suffix is that of a picture this program reads."""
    return path.lower().endswith(SUFFIXES)


def find_folders(root: Path) -> list[str]:
    """Names of the folders in ``root``, in alphabetical order; hidden ones do not count.

    Raises:
        UserError: If there is no such folder, or it cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; name the folder of the data", option="dir")
    _, folders, _ = next(os.walk(root, onerror=_refuse))
    return sorted(filter(_counts, folders))


def folded(name: str) -> str:
    """A name without what systems change: small letters, accents as one sign (NFC)."""
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(maxsize=1024)  # a table may say it a million times
def split_of(name: str) -> str:
    """Which part of a split a folder or an entry of a table names: train, val or test.

    Example:
        ``Training``, ``train_set`` and ``TrainImages`` are ``train``, ``test_public`` and
        ``hold-out`` are ``test``; ``seg_train`` and ``train_test_split`` are neither: empty.
    """
    words = [word for word in _words(name) if word not in _EMPTY_WORDS]
    splits = {_SPLIT_OF.get(word, "") for word in words}
    return splits.pop() if len(splits) == 1 else ""


def mentioned_splits(name: str) -> set[str]:
    """The parts of a split that a name mentions, whatever else it says."""
    return {_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF}


def _words(name: str) -> list[str]:
    name = re.sub(r"(?i)hold[\W_]*out", "holdout", name)
    return [word.lower() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+", name)]


def of_one_sensor(paths: Sequence[str]) -> list[str]:
    """The pictures without those in ``xyz`` or ``depth`` beside ``rgb``, as in MVTec 3D-AD."""
    folders = {path: PurePosixPath(folded(path)).parts[:-1] for path in paths}
    colored = {f[:i] for f in folders.values() for i, name in enumerate(f) if name == "rgb"}
    return [
        path
        for path, f in folders.items()
        if not any(name in _OTHER_SENSORS and f[:i] in colored for i, name in enumerate(f))
    ]


def say_left_out(root: Path, files: Collection[str], used: Iterable[str], why: str) -> None:
    """Says how many of the ``files`` below ``root`` are not used, and which is the first."""
    left_out = sorted({*files} - {*used})
    if left_out:
        say(
            f"{root}: left out: {len(left_out)} of {len(files)} files, {why}; the first is "
            f"{left_out[0]}{conversion(root, left_out)}"
        )


def conversion(root: Path, files: Iterable[str]) -> str:
    """How to make pictures of files that hold some but are not read, as the end of a message."""
    for path in files:
        suffix = PurePosixPath(path.lower().removesuffix(".gz")).suffix
        if advice := _CONVERT.get(".dcm" if _is_dicom(root / path) else suffix):
            return f"; {advice}"
    return ""


def _is_dicom(path: Path) -> bool:
    """Whether a file without a suffix is DICOM, as scanners write them."""
    try:
        with path.open("rb") as file:
            return not path.suffix.strip("0123456789.") and file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def say_unlisted(root: Path, splits: Splits, where: str) -> None:
    """Says which pictures lie beside those that a list names and are not in it."""
    listed = {p for records in splits.values() for r in records for p in (r.path, r.mask) if p}
    folders = {r.path.rpartition("/")[0] for records in splits.values() for r in records}
    beside = [
        f"{folder}/{entry.name}".lstrip("/")
        for folder in sorted(folders)
        if (root / folder).is_dir()
        for entry in os.scandir(root / folder)
        if _counts(entry.name) and is_picture(entry.name)
    ]
    extra = sorted({*beside} - listed)
    if extra:
        say(
            f"{root}: left out: {len(extra)} of {len(beside)} pictures, which {where} does not "
            f"list; the first is {extra[0]}"
        )
