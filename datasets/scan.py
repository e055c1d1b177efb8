"""Which pictures lie in a folder, and what their folders are called."""

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

from datasets.record import Record, check_name
from utils.console import say
from utils.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
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
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini", "lost+found")


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
    return not name.startswith(".") and name not in _LITTER


def find_pictures(root: Path, folder: str = "") -> list[str]:
    """Those of :func:`find_files` that are pictures."""
    return [path for path in find_files(root, folder) if is_picture(path)]


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


def mask_stem(path: str) -> str:
    """The name of the picture that a mask is named after: ``7`` of ``bent/7_mask.png``."""
    return PurePosixPath(path).stem.removesuffix("_mask")


def normal_stems(records: Sequence[Record]) -> set[str]:
    """Names that normal pictures alone have; masks named so mark nothing, and nobody needs them."""
    stems: tuple[set[str], set[str]] = (set(), set())
    for record in records:
        stems[record.label].add(PurePosixPath(record.path).stem)
    return stems[0] - stems[1]


class MaskIndex:
    """Finds the mask of a picture by its name and folders.

    Args:
        paths: The masks, relative to the root of the data.
        folders: Names of the folders that hold masks, in small letters.

    Raises:
        UserError: If two of them are the same picture's.
    """

    def __init__(self, paths: Iterable[str], folders: Collection[str]) -> None:
        self.masks: dict[str, str] = {}
        self.pictures: dict[str, str] = {}
        for path in paths:
            *parts, _ = PurePosixPath(path).parts
            depth = next(i for i, part in enumerate(parts) if part.lower() in folders)
            key = "/".join([*parts[:depth], *parts[depth + 1 :], mask_stem(path)])
            if key in self.masks:
                raise UserError(f"{path}: {self.masks[key]} is a mask of the same picture")
            self.masks[key] = path

    def find(self, path: str) -> str:
        """The mask of the picture ``path``; empty if there is none.

        That of ``test/bad/dent/7.jpg`` is ``masks/test/bad/dent/7.png``, ``test/masks/dent/7.png``,
        ``masks/7_mask.png`` ...: any run of the picture's folders may be left out. The one with
        the most folders is taken.

        Raises:
            UserError: If two fit equally well, or it is another picture's mask already.
        """
        *folders, name = PurePosixPath(path).parts
        stem = PurePosixPath(name).stem
        for gap in range(len(folders) + 1):
            starts = range(len(folders) - gap + 1)
            keys = {"/".join([*folders[:i], *folders[i + gap :], stem]) for i in starts}
            fits = sorted(self.masks[key] for key in keys if key in self.masks)
            if len(fits) > 1:
                raise UserError(f"{path}: two masks fit, {' and '.join(fits)}; keep one")
            if fits:
                other = self.pictures.setdefault(fits[0], path)
                if other != path:
                    raise UserError(
                        f"{fits[0]}: is the mask of {other} or of {path}? Sort the masks into "
                        "folders named as those of the pictures"
                    )
                return fits[0]
        return ""

    def say_unused(self, root: Path, records: Sequence[Record]) -> None:
        """Says which masks no picture has asked for, once all have been looked for."""
        spare = normal_stems(records)
        unused = [m for m in self.masks.values() if m not in self.pictures]
        unused = [mask for mask in unused if mask_stem(mask) not in spare]
        if unused:
            say(
                f"{root}: {len(unused)} of {len(self.masks)} masks are no picture's, the first is "
                f"{unused[0]}; name a mask as its picture, 7.png or 7_mask.png for 7.jpg"
            )
