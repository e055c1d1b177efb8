"""Lists of images to leave out: written by the check, read back by ``dataset.leave_out``."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from datasets.record import Splits
from utils.checkpoint import write_bytes
from utils.console import say
from utils.errors import UserError


def write_fix_list(file: Path, reasons: Mapping[str, str]) -> None:
    """Writes paths, one a line, each below a line that begins with ``#`` and says why.

    Args:
        file: The list.
        reasons: ``{path of an image: why it is left out}``.

    Raises:
        UserError: If the file cannot be written.
    """
    lines = [f"# Images to leave out: dataset.leave_out={file}"]
    for path, reason in reasons.items():
        lines += [f"# {reason}", f"./{path}" if path.startswith("#") else path]
    write_bytes("\n".join([*lines, ""]).encode(), file)


def read_fix_list(file: Path) -> list[str]:
    """The paths of a list; empty lines and those that begin with ``#`` do not count.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        if file.exists() and not file.is_file():  # devices and pipes may never end
            raise OSError("no regular file")
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{file}: cannot be read ({reason}); it is a text with a path in each line",
            option="leave_out",
        ) from error
    named = (line for line in lines if line.strip() and not line.startswith("#"))
    return [PurePosixPath(line.replace("\\", "/")).as_posix() for line in named]


def leave_out(splits: Splits, file: Path) -> Splits:
    """The splits without the images that a list names; one line says how many they are.

    A split that was drawn stays as it is otherwise.

    Raises:
        UserError: As :func:`read_fix_list`.
    """
    names = set(read_fix_list(file))
    kept = without(splits, names)
    number = _count(splits) - _count(kept)
    others = len(names) - number
    say(
        f"{file}: {number} images are left out"
        + (f"; {others} of its {len(names)} lines name no image here" if others else "")
    )
    return kept


def without(splits: Splits, paths: Collection[str]) -> Splits:
    """The splits without the images at ``paths``."""
    return {
        split: [record for record in records if record.path not in paths]
        for split, records in splits.items()
    }


def _count(splits: Mapping[str, Iterable[object]]) -> int:
    return sum(len(list(records)) for records in splits.values())
