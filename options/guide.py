"""The teacher that guides a student: where its weights are, and whether they may be used here."""

import json
from pathlib import Path

from datasets.record import Splits, data_hash
from models.objectives import OBJECTIVES
from options.folder import StageFolder
from options.images import whole_paths
from options.load import loads
from options.schema import Run, Stage
from utils.checkpoint import read_about
from utils.errors import UserError
from utils.runlog import say


def guide_file(run: Run, stage: Stage, splits: Splits) -> Path | None:
    """The checkpoint of the teacher that guides ``stage``; ``None`` if its objective needs none.

    Raises:
        UserError: If it is missing, or if a ready one has learned from images or objects
            that are tested here.
    """
    objective = stage.objective
    if objective is None or not OBJECTIVES[objective.name].needs_teacher or run.teacher is None:
        return None
    path = run.teacher if isinstance(run.teacher, Path) else run.exp.dir / "teacher"
    folder = StageFolder(path, "teacher")
    if not folder.best.is_file():
        raise UserError(f"teacher: {folder.best} is missing; name the folder of a trained teacher")
    if isinstance(run.teacher, Path) and run.exp.resume != "any_options":
        _check_images(run, folder, splits)
    return folder.best


def _check_images(run: Run, folder: StageFolder, splits: Splits) -> None:
    """Raises UserError if a ready teacher has learned from what is tested here."""
    about = read_about(folder.best)
    try:
        lists = json.loads(folder.lists.read_text(encoding="utf-8"))
    except OSError:  # the weights came alone
        if about.get("data") != data_hash(splits):
            say(
                f"teacher: {folder.lists} is missing, and it was trained on another list of images "
                "than this one: nobody knows whether on images that are tested here"
            )
        return
    root = loads(about["options"], str(folder.best)).dataset.dir
    entries = [
        entry
        for split in ("train", "val")
        for of_object in lists[split].values()
        for entry in of_object
    ]
    learned = [entry["img_path"] for entry in entries]
    objects = {entry["cls_name"] for entry in entries}
    tested = whole_paths(run.dataset.dir, (record.path for record in splits["test"]))
    # Where its data are no more, they have moved: here.
    known = whole_paths(root if root.is_dir() else run.dataset.dir, learned)
    both = [
        *(f"object {name}" for name in run.dataset.hold_out if name in objects),
        *sorted(map(str, tested & known)),
    ]
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise UserError(
            f"teacher: {folder.path}: has learned from what is tested here, {both[0]}{more}; "
            "train another one, or write exp.resume=any_options to use it all the same"
        )
