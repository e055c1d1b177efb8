"""Which files are masks, and of which pictures: by their folders, their names and their content."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.check.facts import collect, mask_facts
from datasets.image import open_picture
from datasets.record import Record
from datasets.scan import SUFFIXES, folded
from utils.console import say
from utils.errors import UserError
from utils.store import Store

# Names of masks in the wild: 7_mask.png, 7_GT.png (KolektorSDD2), 7_label.PNG (DAGM),
# 7_segmentation.png (ISIC), 7_mask_1.png (BUSI), mask_7.png.
_WORDS = "mask|masks|gt|groundtruth|ground_truth|label|labels|seg|segmentation|annotation"
_AFFIX = re.compile(rf"^(?:{_WORDS})[ ._-]+(?=.)|(?<=.)[ ._-]+(?:{_WORDS})(?:[ ._-]?\d+)?$", re.I)
# Folders beside pictures that hold masks, if what is in them looks like masks.
_FOLDERS = ("annotation", "annotations", "groundtruth", "gt", "label", "labels", "segmentation")
_LOSSY = (".jfif", ".jpe", ".jpeg", ".jpg")  # a mask is the other of a pair
_GREY_LEVELS = 8  # of masks that number defects
_MOSTLY = 0.98  # of the pixels of a mask are nearly black or nearly white
_NEARLY = 16  # gray levels
_SAMPLE = 16  # files of a folder that are looked into


def mask_stem(path: str) -> str:
    """The name of the picture that a mask is named after: ``7`` of ``bent/7_mask.png``."""
    stem = PurePosixPath(path).stem
    stem = stem[: -len(end)] if (end := PurePosixPath(stem).suffix).lower() in SUFFIXES else stem
    return _AFFIX.sub("", stem, count=1)


def normal_stems(records: Sequence[Record]) -> set[str]:
    """Names that normal pictures alone have; masks named so mark nothing, and nobody needs them."""
    stems: tuple[set[str], set[str]] = (set(), set())
    for record in records:
        stems[record.label].add(PurePosixPath(record.path).stem)
    return stems[0] - stems[1]


def looks_like_a_mask(path: Path) -> bool | None:
    """Whether a file has few gray levels, or is black and white but for what JPEG adds.

    Masks of defects are mostly one flat color; photographs never are. ``None``: it cannot be read.
    """
    try:
        with open_picture(path, mend="") as image:
            counts = np.asarray(image.convert("L").histogram())
    except UserError:
        return None
    flat = counts[:_NEARLY].sum() + counts[-_NEARLY:].sum()
    return bool(np.count_nonzero(counts) <= _GREY_LEVELS or flat >= _MOSTLY * counts.sum())


def marked_masks(root: Path, masks: Iterable[str], store: Store) -> set[str]:
    """Those of the masks that mark something, or cannot be read; empty names do not count.

    Raises:
        UserError: If the store cannot be used.
    """
    paths = sorted({*masks} - {""})
    facts = collect(root, paths, mask_facts, store=store, title="reading masks")
    return {path for path, fact in facts.items() if fact.marked or fact.error}


class MaskIndex:
    """Tells the masks from the pictures, and finds the mask of a picture.

    Args:
        root: The folder of the data.
        paths: All pictures and masks, relative to it.
        folders: Names of the folders that hold masks, in small letters.

    Attributes:
        masks: The masks by the picture that they are named after; one may be a folder of files.
        files: The files of all masks.
        pictures: The other paths.

    Raises:
        UserError: If two masks are the same picture's.
    """

    def __init__(self, root: Path, paths: Sequence[str], folders: Collection[str]) -> None:
        self.root = root
        inside = {path: depth for path in paths if (depth := _depth(path, folders)) is not None}
        inside |= self._of_unnamed_folders([path for path in paths if path not in inside])
        beside = self._beside([path for path in paths if path not in inside])
        self.files = [*inside, *beside]
        self.pictures = [path for path in paths if path not in inside and path not in beside]
        stems: dict[str, str] = {}
        for path in self.pictures:
            stem = PurePosixPath(path).stem
            stems.setdefault(folded(stem), stem)
            stems[stem] = stem
        self.masks: dict[str, str] = {}
        in_folders = self._add_folders(inside, stems)
        for path, depth in inside.items():
            if path in in_folders:
                continue
            *parts, _ = PurePosixPath(path).parts
            names = (PurePosixPath(path).stem, mask_stem(path))
            spelled = [n for name in names for n in (name, folded(name)) if n in stems]
            stem = stems[spelled[0]] if spelled else names[1]
            self._add("/".join([*parts[:depth], *parts[depth + 1 :], stem]), path)
        for path, picture in beside.items():
            self._add(str(PurePosixPath(picture).with_suffix("")), path)
        self.owners: dict[str, str] = {}

    def _add(self, key: str, path: str) -> None:
        if key in self.masks:
            raise UserError(
                f"{path}: {self.masks[key]} is a mask of the same picture; put all masks of one "
                f"picture into a folder with its name: masks/{PurePosixPath(key).name}/"
            )
        self.masks[key] = path

    def _add_folders(self, inside: Mapping[str, int], stems: Collection[str]) -> set[str]:
        """Adds folders named as a picture, whose files are its mask together, as in MVTec LOCO.

        Returns:
            Their files: ``ground_truth/dent/7/000.png`` and ``001.png`` of ``test/dent/7.png``.
        """
        around = {part for path in self.pictures for part in PurePosixPath(path).parts[:-1]}
        members = defaultdict(list)
        for path, depth in inside.items():
            folder = PurePosixPath(path).parent
            if len(folder.parts) > depth + 1 and folder.name in stems and folder.name not in around:
                members[folder, depth].append(path)
        for (folder, depth), files in members.items():
            key = "/".join([*folder.parts[:depth], *folder.parts[depth + 1 :]])
            self._add(key, str(folder) if len(files) > 1 else files[0])
        return {path for files in members.values() for path in files}

    def _of_unnamed_folders(self, paths: Iterable[str]) -> dict[str, int]:
        """Masks in folders such as ``gt``, whose name alone proves nothing."""
        members = defaultdict(list)
        for path in paths:
            folder = PurePosixPath(path).parent
            if folder.name.lower() in _FOLDERS:
                members[folder].append(path)
        looks = {
            folder: [looks_like_a_mask(self.root / p) for p in files[:: len(files) // _SAMPLE + 1]]
            for folder, files in members.items()
        }
        return {
            path: len(folder.parts) - 1
            for folder, files in members.items()
            if any(looks[folder]) and False not in looks[folder]
            for path in files
        }

    def _beside(self, paths: Iterable[str]) -> dict[str, str]:
        """Masks that lie in one folder with their pictures, each with its picture.

        ``7_mask.png`` is a mask of ``7.jpg`` by its name; ``7_label.png`` and ``7.png`` are if they
        look like masks: they may be other photographs. One that cannot be read is a mask if others
        of such a name are, in that folder.
        """
        members: dict[tuple[str, str], list[str]] = defaultdict(list)
        for path in paths:
            pure = PurePosixPath(path)
            members[str(pure.parent), folded(pure.stem)].append(path)
        found, unread = {}, {}

        def is_mask(path: str, picture: str) -> bool:
            looks = looks_like_a_mask(self.root / path)
            if looks is None:
                unread[path] = picture
            return bool(looks)

        for (folder, _), files in members.items():
            named = members.get((folder, folded(mask_stem(files[0]))), [])
            for path in files if named and named is not files else ():
                is_named = PurePosixPath(path).stem.lower().endswith("_mask")
                if is_named or is_mask(path, named[0]):
                    found[path] = named[0]
            if len(files) == 2:
                pair = sorted(files, key=lambda path: path.lower().endswith(_LOSSY))
                if is_mask(*pair):
                    found[pair[0]] = pair[1]
                elif is_mask(*pair[::-1]):
                    found[pair[1]] = pair[0]
        kinds = {_naming(mask, picture) for mask, picture in found.items()}
        return found | {m: picture for m, picture in unread.items() if _naming(m, picture) in kinds}

    def find(self, path: str) -> str:
        """The mask of the picture ``path``; empty if there is none.

        That of ``test/bad/dent/7.jpg`` is ``masks/test/bad/dent/7.png``, ``test/masks/dent/7.png``,
        ``masks/7_mask.png`` ...: any run of the picture's folders may be left out. The one with
        the most folders is taken.

        Raises:
            UserError: If two fit equally well, or it is another picture's mask already.
        """
        for fits in self._fits(path):
            if len(fits) > 1:
                raise UserError(f"{path}: two masks fit, {' and '.join(fits)}; keep one")
            other = self.owners.setdefault(fits[0], path)
            if other != path:
                raise UserError(
                    f"{fits[0]}: is the mask of {other} or of {path}? Sort the masks into "
                    "folders named as those of the pictures"
                )
            return fits[0]
        return ""

    def find_all(self, paths: Iterable[str]) -> dict[str, str]:
        """The mask of each picture, where masks are the labels.

        Raises:
            UserError: As :meth:`find`, or if there are masks and no picture has one: all would be
                normal.
        """
        named = {path: self.find(path) for path in paths}
        if self.masks and not any(named.values()):
            raise UserError(
                f"{self.root}: none of {len(self.masks)} masks is named as its picture, the first "
                f"is {next(iter(self.masks.values()))}; name it 7.png or 7_mask.png for 7.jpg",
                option="labels",
            )
        return named

    def _fits(self, path: str) -> Iterator[list[str]]:
        """Masks that a picture's name and folders fit, those that agree in most folders first."""
        *folders, name = PurePosixPath(path).parts
        stem = PurePosixPath(name).stem
        for gap in range(len(folders) + 1):
            starts = range(len(folders) - gap + 1)
            keys = {"/".join([*folders[:i], *folders[i + gap :], stem]) for i in starts}
            if fits := sorted(self.masks[key] for key in keys if key in self.masks):
                yield fits

    def say_unused(self, records: Sequence[Record]) -> None:
        """Says which masks no picture has asked for, once all have been looked for."""
        normal = (record.path for record in records if not record.label)
        spare = {mask for path in normal for mask in next(self._fits(path), [])}
        unused = [m for m in self.masks.values() if m not in self.owners and m not in spare]
        if unused:
            say(
                f"{self.root}: {len(unused)} of {len(self.masks)} masks are no picture's, the "
                f"first is {unused[0]}; name a mask as its picture, 7.png or 7_mask.png for 7.jpg"
            )


def _naming(mask: str, picture: str) -> tuple[str, str]:
    """The folder of a mask, and how it is named: ``_GT.png`` of ``7_GT.png`` and ``7.png``."""
    path = PurePosixPath(mask)
    return str(path.parent), path.name.replace(PurePosixPath(picture).stem, "", 1)


def _depth(path: str, folders: Collection[str]) -> int | None:
    parts = PurePosixPath(path).parts[:-1]
    return next((i for i, part in enumerate(parts) if part.lower() in folders), None)
