"""The folder of one stage: whose it is, how far it got, and whether it may be gone on with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from options.dump import dumps, first_difference
from options.load import loads
from options.schema import Run
from utils.checkpoint import load_state, read_about, save_state, write_bytes
from utils.errors import UserError


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
        """Everything needed to go on after the last finished epoch."""
        return self.path / "last.pt"

    @property
    def options(self) -> Path:
        """The options it was made with."""
        return self.path / "options.yaml"

    @property
    def about(self) -> Path:
        """Where it comes from: data, teacher, code, machine."""
        return self.path / "about.json"

    @property
    def lists(self) -> Path:
        """The images of each split."""
        return self.path / "meta.json"

    @property
    def is_trained(self) -> bool:
        """Whether anything was trained in it; else it is nobody's, whatever else is there."""
        return self.best.exists() or self.last.exists()

    def claim(self, run: Run, about: Mapping[str, Any]) -> None:
        """Raises UserError if the folder holds a run that ``run`` must not go on with."""
        if not self.is_trained:
            return
        if run.exp.resume == "never":
            raise UserError(
                f"{self.path}: holds a run already, and exp.resume is never; choose another exp.dir"
            )
        self.check(run, about)

    def describe(self, run: Run, about: Mapping[str, Any], lists: object) -> None:
        """Writes what a training is made of that begins, or goes on with other options.

        A run that goes on as it began keeps its description.

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
        try:
            text = self.options.read_text(encoding="utf-8")
            known = json.loads(self.about.read_text(encoding="utf-8"))
        except OSError:  # the weights came alone; they know it too
            known = read_about(self.best)
            text = known["options"]
        before = loads(text, str(self.options))
        sections = ("dataset", "misc", self.stage)
        if self.stage == "baseline":  # it never saw the data set, and may be tested on any
            sections = ("dataset.auxiliary", "misc", self.stage)
        change = first_difference(run, before, sections)
        for key in ("data", "teacher"):
            if change is None and key in about and about[key] != known.get(key):
                change = f"{_MEANING[key]} is {about[key]}, was {known.get(key)}"
        if change:
            raise UserError(
                f"{self.path}: was made with other options: {change}; choose another exp.dir, or "
                "write exp.resume=any_options to use it all the same"
            )

    def load_state(self) -> dict[str, Any] | None:
        """The state after the last finished epoch; ``None`` if there is none."""
        return load_state(self.last) if self.last.exists() else None

    def num_epochs(self) -> int:
        """How many epochs are done, as ``log.csv`` says."""
        log = self.path / "log.csv"
        return len(log.read_text(encoding="utf-8").splitlines()) - 1 if log.exists() else 0

    def save_state(self, state: dict[str, Any]) -> None:
        """Replaces the state, all or nothing."""
        save_state(state, self.last)


_MEANING = {
    "data": "the list of images (its hash; some it was trained on may be test images now)",
    "teacher": "the teacher (its hash)",
}
