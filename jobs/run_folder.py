"""The folder of one network: what made it, how far it came, and what it has learned from."""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from datasets.record import Splits
from jobs.data import whole_paths
from options.dump import dumps, first_difference
from options.load import loads
from options.schema import Run
from utils.checkpoint import PART, load_state, read_about, save_state, write_bytes
from utils.errors import UserError
from utils.ranks import is_main

# What reading a damaged file may raise.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Learned:
    """What a network has seen in its training.

    Attributes:
        files: The images, validation included, without links.
        objects: Names of their objects.
    """

    files: frozenset[Path]
    objects: frozenset[str]


@dataclass(frozen=True)
class StageFolder:
    """``<exp.dir>/<stage>``: options.yaml, about.json, meta.json, log.csv, tensorboard, weights.

    Attributes:
        path: The folder.
        stage: ``teacher``, ``student`` or ``baseline``.
    """

    path: Path
    stage: str

    @property
    def best(self) -> Path:
        """Weights of the best epoch, with everything needed to rebuild the network."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """Everything needed to resume after the last finished epoch."""
        return self.path / "last.pt"

    @property
    def options(self) -> Path:
        """The options of the training."""
        return self.path / "options.yaml"

    @property
    def about(self) -> Path:
        """Where the network comes from: data, teacher, code, machine."""
        return self.path / "about.json"

    @property
    def lists(self) -> Path:
        """The images of each split."""
        return self.path / "meta.json"

    @property
    def is_trained(self) -> bool:
        """Whether anything was trained here; else other files in the folder do not matter."""
        return self.best.exists() or self.last.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training here; the lock ends with its process, even killed.

        Raises:
            UserError: If another process trains here.
        """
        if not is_main():
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"{self.path}: another process is training here; wait for it, or choose another "
                "exp.dir"
            ) from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from error
        try:
            for file in self.path.iterdir():
                if PART.fullmatch(file.name):  # left by a process that was killed
                    file.unlink(missing_ok=True)
            yield
        finally:
            lock.release()
            self._remove_if_empty()

    def _remove_if_empty(self) -> None:
        """A command that was refused leaves no folders."""
        with suppress(OSError):  # the folder is gone, or another process has begun to use it
            if [file.name for file in self.path.iterdir()] == [".lock"]:
                (self.path / ".lock").unlink()
                self.path.rmdir()
                if not any(self.path.parent.iterdir()):
                    self.path.parent.rmdir()

    def claim(self, run: Run, about: Mapping[str, Any]) -> None:
        """Raises UserError if the folder holds a run that ``run`` must not resume."""
        if not self.is_trained:
            return
        if run.exp.resume == "never":
            raise UserError(
                f"{self.path}: holds a run already, and exp.resume is never; choose another exp.dir"
            )
        self.check(run, about)

    def describe(self, run: Run, about: Mapping[str, Any], lists: object) -> None:
        """Writes the description of a training that begins, or is resumed with other options.

        Args:
            run: The experiment.
            about: What else the result depends on (``data``, ``teacher``), and what is good to
                know.
            lists: The images of each split, written as ``meta.json``.
        """
        if self.is_trained and run.exp.resume != "any_options":
            return
        write_bytes(json.dumps(lists, indent=1).encode(), self.lists)
        write_bytes(json.dumps(about, indent=1).encode(), self.about)
        write_bytes(dumps(run).encode(), self.options)

    def check(self, run: Run, about: Mapping[str, Any]) -> None:
        """Raises UserError, naming the first difference, if another experiment made the folder."""
        if run.exp.resume == "any_options":
            return
        before, about_before = self._description()
        before = self._same_object(run, before)
        sections = ("dataset", "misc", self.stage)
        if self.stage == "baseline":  # it never saw the data set, and may be tested on any
            sections = ("dataset.auxiliary", "misc", self.stage)
        if change := first_difference(run, before, sections):
            raise UserError(
                f"{self.path}: was made with other options: {change}; choose another exp.dir, or "
                "write exp.resume=any_options to use it all the same"
            )
        if about.get("teacher", "") not in ("", about_before.get("teacher")):
            raise UserError(
                f"{self.path}: was guided by another teacher; choose another exp.dir, or write "
                "exp.resume=any_options to use it all the same"
            )
        if about.get("data", "") not in ("", about_before.get("data")):
            raise UserError(
                f"{self.path}: was made with another list of images than that of {run.dataset.dir} "
                "(other files, labels or names of objects); name its own data with dataset.dir, or "
                "choose another exp.dir to train again"
            )

    def _same_object(self, run: Run, before: Run) -> Run:
        """``before`` with the name of its object, which may be that of its folder.

        Raises:
            UserError: If the folder of the data was renamed, and the object with it.
        """
        name = run.dataset.reader.options.get("object_name", "")
        known = before.dataset.reader.options.get("object_name", "")
        if not name or self.stage == "baseline" or name == known:
            return before
        if not known:  # as runs of earlier versions have it
            known = before.dataset.dir.resolve().name
            if name == known:
                return replace(before, dataset=before.dataset.with_reader(object_name=name))
        raise UserError(
            f"{self.path}: was trained on images of {known!r}, but those of {run.dataset.dir} are "
            f"of {name!r}, the name of their folder if no option says so; if they are the same "
            f"images, write dataset.object_name={known}"
        )

    def _description(self) -> tuple[Run, dict[str, Any]]:
        """The experiment that made the folder; the weights know it if the files are damaged."""
        try:
            run = loads(self.options.read_text(encoding="utf-8"), str(self.options))
            about: dict[str, Any] = json.loads(self.about.read_text(encoding="utf-8"))
            about["data"]
        except (*_UNREADABLE, UserError) as error:
            if not self.best.is_file():
                raise UserError(
                    f"{self.path}: options.yaml or about.json is missing or damaged ({error}); "
                    "remove the folder to train again"
                ) from error
            about = read_about(self.best)
            run = loads(about["options"], str(self.best))
        return run, about

    def learned(self, root: Path) -> Learned | None:
        """What the network has seen; ``None`` if the folder has no list, only weights.

        Args:
            root: Where its images are now, if they are no longer where they were.

        Raises:
            UserError: If the list is damaged.
        """
        try:
            lists = json.loads(self.lists.read_text(encoding="utf-8"))
            entries = [
                (str(entry["img_path"]), str(entry["cls_name"]))
                for split in ("train", "val")
                for of_object in lists[split].values()
                for entry in of_object
            ]
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            raise UserError(
                f"{self.lists}: is damaged ({type(error).__name__}), so it is not known which "
                "images the network has learned from; put the file back, or train again"
            ) from error
        dataset = self._description()[0].dataset
        if self.stage == "baseline" and dataset.auxiliary is not None:
            before = dataset.auxiliary.dir
        else:
            before = dataset.dir
        # A relative folder may be another one today.
        is_there = any((before / path).is_file() for path, _ in entries)
        files = whole_paths(before if is_there else root, (path for path, _ in entries))
        return Learned(frozenset(files), frozenset(name for _, name in entries))

    def check_unseen(self, run: Run, splits: Splits) -> None:
        """Raises UserError if the network has learned from images or objects that are tested."""
        learned = self.learned(run.dataset.dir)
        if learned is None:
            return
        tested = whole_paths(run.dataset.dir, (record.path for record in splits["test"]))
        unseen = run.dataset.hold_out if run.dataset.hold_out_anomalies is None else ()
        both = [
            *(f"object {name}" for name in unseen if name in learned.objects),
            *sorted(map(str, tested & learned.files)),
        ]
        if both:
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            raise UserError(
                f"{self.path}: has learned from what is tested here, {both[0]}{more}; test it on "
                "the split it was trained with, or train another one in another exp.dir"
            )

    def check_finished(self) -> None:
        """Raises UserError if the weights of a finished training are missing."""
        if not self.best.is_file():
            raise UserError(
                f"{self.best}: is missing, although all epochs are done; put it back, or remove "
                f"{self.last} to train again"
            )

    def load_state(self) -> dict[str, Any] | None:
        """The state after the last finished epoch; ``None`` if there is none."""
        return load_state(self.last) if self.last.exists() else None

    def num_epochs(self) -> int | None:
        """How many epochs are done, as ``log.csv`` says; ``None`` if it cannot say."""
        try:
            with (self.path / "log.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            return int(rows[-1]["epoch"])
        except (OSError, ValueError, LookupError, TypeError, csv.Error):
            return None

    def save_state(self, state: dict[str, Any]) -> None:
        """Replaces the state, all or nothing."""
        save_state(state, self.last)
