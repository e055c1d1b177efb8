"""The second job: score the test images."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.captions import Policy
from datasets.record import Splits, data_hash
from jobs.build import build_model, load_model
from jobs.data import read_data, read_tested
from jobs.parts import parts_to_test
from jobs.run_folder import StageFolder
from jobs.scoring import score_test
from models.base import AnomalyModel
from models.methods import METHODS
from options.schema import Run, Stage
from utils.checkpoint import write_bytes
from utils.console import say
from utils.device import Machine
from utils.errors import UserError
from utils.evaluation import per_object
from utils.pixel_evaluation import PixelFigures
from utils.provenance import environment
from utils.ranks import gathered, is_main, joined
from utils.tables import write_tables


@dataclass(frozen=True)
class Report:
    """What was found about one network.

    Attributes:
        folder: Where its scores and tables go.
        title: What was scored, and what it was told.
        scores: One row per image.
        pixels: What its maps are worth; ``None``: nobody asked.
        about: Where the figures come from.
    """

    folder: Path
    title: str
    scores: pd.DataFrame
    pixels: PixelFigures | None
    about: Mapping[str, Any]

    @property
    def table(self) -> pd.DataFrame:
        """The result of ``per_object``, with pixel figures where they were asked for."""
        table = per_object(self.scores)
        return table if self.pixels is None else table.join(self.pixels.table())

    def write(self) -> str:
        """Writes scores and tables; returns what there is to be said."""
        write_bytes(self.scores.to_csv(index=False).encode(), self.folder / "scores.csv")
        text = write_tables(self.folder, self.title, self.table, self.about)
        return f"\n{text}\n{self.folder}: scores.csv, table.md, table.csv, table.json"


def evaluate(
    run: Run,
    source: str,
    *,
    oracle_text: bool = False,
    untrained: bool = False,
    maps: bool = False,
) -> Sequence[Report]:
    """Scores every test image once per network and writes scores and tables.

    Args:
        run: The experiment; its stages must be trained.
        source: The options as the user wrote them, for the tables' captions.
        oracle_text: Also score the teacher with the true captions, as an upper bound.
        untrained: Score the networks as they are before their training instead.
        maps: Also make anomaly maps, where a network can, and compare them with the masks.

    Returns:
        What was found, network by network.

    Raises:
        UserError: If a stage is not trained, or was trained with other options.
    """
    machine = Machine.choose(run.misc.device, run.misc.precision)
    splits = read_tested(run.dataset)
    about = origin(run, splits, source, machine)
    by_folder: dict[Path, list[Report]] = defaultdict(list)
    is_many = run.dataset.per_object
    with joined(machine.device):
        for part, found in parts_to_test(run, splits):
            of_part = {**about, "data": data_hash(found)}
            tester = _Tester(part, found, machine, of_part, maps, is_part=is_many)
            for name, stage in part.stages.items():
                if untrained and stage.needs_training:
                    tester.untrained(name)
                else:
                    tester.ready(name, source, oracle_text=oracle_text)
            for report in tester.reports:
                by_folder[report.folder.relative_to(part.exp.dir)].append(report)
    if not is_many:
        return [report for reports in by_folder.values() for report in reports]
    whole = [_together(run.exp.dir / name, found, about) for name, found in by_folder.items()]
    for report in whole if is_main() else ():
        say(report.write())
    return whole


def origin(run: Run, splits: Splits, source: str, machine: Machine) -> dict[str, Any]:
    """Where figures of the test images come from, as captions say it."""
    return {
        "data": data_hash(splits),
        "split": f"{run.dataset.name} {run.dataset.split} test".replace("  ", " "),
        "held out": ", ".join(run.dataset.hold_out),
        "seed": run.misc.seed,
        "options": source,
        "precision": str(machine),
        **environment(machine.device),
    }


def _together(folder: Path, reports: Sequence[Report], about: Mapping[str, Any]) -> Report:
    """One report of the networks of all objects."""
    titles = " / ".join(dict.fromkeys(report.title for report in reports))
    pixels = [report.pixels for report in reports if report.pixels is not None]
    return Report(
        folder,
        f"{titles}, one model per object",
        pd.concat([report.scores for report in reports], ignore_index=True),
        PixelFigures.merged(pixels) if pixels else None,
        about,
    )


def open_network(
    run: Run, name: str, about: Mapping[str, Any], source: str
) -> tuple[AnomalyModel, Stage, str]:
    """A network that is ready to be tested: trained, or of a kind that needs no training.

    Args:
        run: The experiment.
        name: Which of its stages.
        about: Under ``data`` the hash of its images, which must be those of its training.
        source: The options that ``run.py`` trains it with, for the message that it has not yet.

    Returns:
        The network in eval mode, its stage, and what to call it.

    Raises:
        UserError: If it is not trained, was trained with other options or on images that are to be
            tested, or if its weights cannot be had.
    """
    stage = run.stages[name]
    if not stage.needs_training:
        model = build_model(run, name, stage).eval()
        shots = model.num_references
        references = "reference" if shots == 1 else "references"
        how = f"{shots} normal {references} per object" if shots else "zero-shot"
        return model, stage, f"{stage.model.name}, {how}"
    folder = StageFolder(run.exp.dir / name, name)
    if not folder.best.is_file():
        raise UserError(
            f"{folder.path}: nothing is trained yet; first: python run.py {source}"
            + _released(name, stage)
        )
    if name == "baseline" and _may_overlap(run):
        read_data(run, name)  # refuses images that it was trained on
    folder.check(run, about if name != "baseline" else {})
    model, trained, _ = load_model(folder.best, stage)
    done, title = folder.num_epochs(), trained.model.name
    if done < stage.engine.epochs:
        title += f", UNFINISHED ({done} of {stage.engine.epochs} epochs)"
    return model, trained, title


def _may_overlap(run: Run) -> bool:
    """Whether the auxiliary data lie in the folder of the data set, or the other way round."""
    if run.dataset.auxiliary is None:
        return False
    one, other = run.dataset.dir.resolve(), run.dataset.auxiliary.dir.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _released(name: str, stage: Stage) -> str:
    """How to do without a training, for a method whose authors gave away their weights."""
    known = METHODS[stage.model.name].released_as
    return f"; or take its authors' weights: {name}.model.released=FILE ({known})" if known else ""


@dataclass(frozen=True)
class _Tester:
    run: Run
    splits: Splits
    machine: Machine
    about: dict[str, Any]
    maps: bool
    is_part: bool  # one object of many: written, not shown
    reports: list[Report] = field(default_factory=list)

    def untrained(self, name: str) -> None:
        stage = self.run.stages[name]
        model = build_model(self.run, name, stage)
        folder = self.run.exp.dir / name / "untrained"
        self.report(model, stage, folder, f"{stage.model.name}, untrained")

    def ready(self, name: str, source: str, *, oracle_text: bool) -> None:
        model, stage, title = open_network(self.run, name, self.about, source)
        folder = self.run.exp.dir / name
        if not stage.needs_training:
            self.report(model, stage, folder, title)
            return
        if not model.reads_text:
            if oracle_text:
                say(f"{title}: reads no text; --oracle-text adds nothing")
            self.report(model, stage, folder, f"{title}, image only")
            return
        self.report(model, stage, folder, f"{title}, told the object's name only")
        if oracle_text:
            said = f"{title}, oracle text (told the truth: an upper bound, not a detector)"
            policy = stage.captions.policy
            self.report(model, stage, folder / "oracle_text", said, policy)

    def report(
        self,
        model: AnomalyModel,
        stage: Stage,
        folder: Path,
        title: str,
        policy: Policy = "object",
    ) -> None:
        pixels = self.pixels(model, title)
        scores = score_test(
            model, self.run, stage, self.splits, self.machine, policy=policy, pixels=pixels
        )
        if pixels is not None:
            pixels = PixelFigures.merged(gathered(pixels))
        if self.run.dataset.hold_out:
            title += ", tested on objects that it was not trained on"
        report = Report(folder, title, scores, pixels, self.about)
        self.reports.append(report)
        if is_main():
            said = report.write()
            if not self.is_part:
                say(said)

    def pixels(self, model: AnomalyModel, title: str) -> PixelFigures | None:
        """Where figures of its maps are gathered; ``None``: nobody asked, or there are none."""
        if not self.maps:
            return None
        if not model.has_map:
            say(f"{title}: has no anomaly map; --maps adds nothing")
            return None
        if not any(record.mask for record in self.splits["test"]):
            say(f"{self.run.dataset.dir}: no test image has a mask; --maps adds nothing")
            return None
        return PixelFigures()
