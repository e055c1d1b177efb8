"""The folder of one stage: whose it is, how far it got, and whether it may be gone on with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from options.dump import dumps, first_difference
from options.load import loads
from options.schema import Run
from utils.checkpoint import load_state, save_state, write_bytes
from utils.errors import UserError


@dataclass(frozen=True)
class StageFolder:
    """``<exp.dir>/<stage>``: options.yaml, about.json, log.csv, tensorboard, best and last.

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

    def claim(self, run: Run, about: dict[str, Any], lists: object) -> None:
        """Makes the folder, or makes sure that it was made by the same experiment.

        Args:
            run: The experiment.
            about: What else the result depends on (``data``, ``teacher``), and what is good to
                know; kept as it was on the first call.
            lists: The images of each split, written as ``meta.json``.

        Raises:
            UserError: If the folder holds another experiment's run.
        """
        if self.options.exists() and run.exp.resume == "never":
            raise UserError(
                f"{self.path}: holds a run already, and exp.resume is never; choose another exp.dir"
            )
        if self.options.exists():
            self.check(run, about)
            return
        write_bytes(json.dumps(lists, indent=1).encode(), self.path / "meta.json")
        write_bytes(json.dumps(about, indent=1).encode(), self.about)
        write_bytes(dumps(run).encode(), self.options)  # last: without it the folder is nobody's

    def check(self, run: Run, about: Mapping[str, Any]) -> None:
        """Raises UserError, naming the first difference, if another experiment made the folder."""
        if run.exp.resume == "any_options":
            return
        before = loads(self.options.read_text(encoding="utf-8"), str(self.options))
        sections = ("dataset", "misc", self.stage)
        if self.stage == "baseline":  # it never saw the data set, and may be tested on any
            sections = ("dataset.auxiliary", "misc", self.stage)
        change = first_difference(run, before, sections)
        known = json.loads(self.about.read_text(encoding="utf-8"))
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
