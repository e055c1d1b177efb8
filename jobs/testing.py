"""Scores the test images and writes the tables: of one experiment, its objects, its seeds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.captions import Policy
from datasets.check.facts import collect, mask_facts
from jobs.data import store_of
from jobs.experiments import of_seeds
from jobs.reporting.evidence import gather
from jobs.reporting.report import Evidence, write_report
from jobs.session import Network, Session
from jobs.stress import stress
from options.dump import plain
from options.schema import Run, Stage
from utils.checkpoint import write_bytes
from utils.console import say
from utils.device import Machine
from utils.evaluation import per_object
from utils.pixel_evaluation import PixelFigures
from utils.ranks import gathered, is_main, joined
from utils.tables import (
    remove_threshold_tables,
    write_seed_tables,
    write_tables,
    write_threshold_tables,
)
from utils.thresholds import figures_at_threshold


@dataclass(frozen=True)
class Extras:
    """What else is scored.

    Attributes:
        oracle_text: Also the teacher with the true captions, as an upper bound.
        untrained: The networks before their training instead.
        maps: Also anomaly maps against the masks, where a network has maps.
        stress: Also the figures under small changes of the test images.
        tsne: A plot of the features in the report, too.
    """

    oracle_text: bool = False
    untrained: bool = False
    maps: bool = False
    stress: bool = False
    tsne: bool = False


@dataclass(frozen=True)
class Report:
    """The result of testing one network.

    Attributes:
        folder: Where its scores and tables go.
        title: What was scored, and what it was told.
        scores: One row per image.
        pixels: Figures of its maps; ``None``: they were not asked for.
        about: Where the figures come from.
        threshold: What is known about the thresholds; empty: there are none.
        verdicts: As ``scores``, with a column ``verdict``; ``None``: there are none.
        evidence: What else the page shows.
    """

    folder: Path
    title: str
    scores: pd.DataFrame
    pixels: PixelFigures | None
    about: Mapping[str, Any]
    threshold: str = ""
    verdicts: pd.DataFrame | None = None
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def table(self) -> pd.DataFrame:
        """The result of ``per_object``, with pixel figures where they were asked for."""
        table = per_object(self.scores)
        return table if self.pixels is None else table.join(self.pixels.table())

    def write(self) -> str:
        """Writes scores and tables; returns the table as text, and where it is."""
        write_bytes(self.scores.to_csv(index=False).encode(), self.folder / "scores.csv")
        text = write_tables(self.folder, self.title, self.table, self.about)
        rows = self.scores if self.verdicts is None else self.verdicts
        write_report(self.folder, self.title, rows, self.table, self.about, self.evidence)
        files = "report.html, scores.csv, table.md, table.csv, table.json"
        if self.verdicts is None:
            remove_threshold_tables(self.folder)  # of other weights
            return f"\n{text}\n{self.folder}: {files}"
        figures = figures_at_threshold(self.verdicts)
        second = write_threshold_tables(self.folder, figures, f"{self.title}: {self.threshold}")
        return f"\n{text}\n{second}\n{self.folder}: {files}, threshold.md, threshold.csv"


def evaluate(run: Run, extras: Extras, seeds: int | None = None) -> None:
    """Scores every test image once per network; writes and prints scores and tables.

    Args:
        run: The experiment; its stages must be trained.
        extras: What else is scored.
        seeds: Number of seeds, with a table of their mean and spread; ``None``: no seeds.

    Raises:
        UserError: If a stage is not trained, or was trained with other options.
    """
    runs = of_seeds(run, seeds)
    if seeds is not None:
        runs = [replace(one, command=f"{run.command} --seeds {seeds}") for one in runs]
    machine = Machine.choose(run.misc.device, run.misc.precision)
    with joined(machine.device):
        reports = [_test_objects(one, extras, machine) for one in runs]
    if seeds is not None and is_main():
        for of_network in zip(*reports, strict=True):
            _write_seeds(run, runs, of_network)


def _test_objects(run: Run, extras: Extras, machine: Machine) -> list[Report]:
    """The reports of one experiment, network by network; those of single objects as one."""
    reports: dict[Path, list[Report]] = defaultdict(list)
    flags = [f"--{name.replace('_', '-')}" for name, is_on in vars(extras).items() if is_on]
    program = " ".join(["test.py", *flags])
    whole = Session.of(run, machine, program)
    for session in whole.of_objects():
        for report in _reports(session, extras):
            reports[report.folder.relative_to(session.run.exp.dir)].append(report)
            if is_main():
                text = report.write()
                if not run.dataset.per_object:
                    say(text)
    if not run.dataset.per_object:
        return [report for of_network in reports.values() for report in of_network]
    about = whole.about
    together = [_merged(run.exp.dir / name, parts, about) for name, parts in reports.items()]
    for report in together if is_main() else ():
        say(report.write())
    return together


def _reports(session: Session, extras: Extras) -> Iterable[Report]:
    """Scores the networks of one session."""
    for name, stage in session.run.stages.items():
        folder = session.run.exp.dir / name
        if extras.untrained and stage.needs_training:
            network = session.untrained(name)
            yield _report(session, network, folder / "untrained", extras)
            continue
        network = session.network(name)
        if stage.needs_training:
            _say_threshold(session, stage, network, folder)
        reads_text = network.model.reads_text
        if extras.oracle_text and stage.needs_training and not reads_text:
            say(f"{network.title}: reads no text; --oracle-text adds nothing")
        told = ""
        if stage.needs_training:
            told = ", told the object's name only" if reads_text else ", image only"
        report = _report(session, network.titled(told), folder, extras)
        yield report
        if extras.stress:
            stress(session, network.titled(told), report.scores, folder)
        if extras.oracle_text and reads_text and stage.needs_training:
            told = ", oracle text (captions tell the label: an upper bound, not a detector)"
            policy = network.stage.captions.policy
            yield _report(session, network.titled(told), folder / "oracle_text", extras, policy)


def _say_threshold(session: Session, stage: Stage, network: Network, folder: Path) -> None:
    """Prints why there is no table at the threshold, or not at the one that was asked for."""
    again = f"python run.py {session.run.command}"
    if network.verdicts is None:
        say(f"{folder}: no threshold was found yet; {again} finds it on validation images")
    elif network.verdicts.options != plain(stage.threshold):
        say(f"{folder}: its threshold was found with other options; {again} finds it again")


def _report(
    session: Session, network: Network, folder: Path, extras: Extras, policy: Policy = "object"
) -> Report:
    pixels = PixelFigures() if extras.maps and _has_maps(session, network) else None
    scores = session.scores(network, policy=policy, pixels=pixels)
    if pixels is not None:
        pixels = PixelFigures.merged(gathered(pixels))
        _count_regions(session, pixels)
    title = network.title
    dataset = session.run.dataset
    if dataset.hold_out and dataset.hold_out_anomalies is None:
        title += ", tested on objects that it was not trained on"
    if dataset.hold_out_defects:
        title += ", tested on defects that it was not trained on"
    # Thresholds are found without the true captions.
    verdicts = network.verdicts if policy == "object" else None
    evidence = Evidence()
    if is_main():
        evidence = gather(session, replace(network, verdicts=verdicts), scores, tsne=extras.tsne)
    report = Report(folder, title, scores, pixels, session.about, evidence=evidence)
    if verdicts is None:
        return report
    return replace(report, threshold=str(verdicts), verdicts=verdicts.decide(scores))


def _count_regions(session: Session, pixels: PixelFigures) -> None:
    """Adds how many regions the masks of the test images have as they were drawn."""
    of_mask = {record.mask: record.object for record in session.splits["test"] if record.mask}
    facts = collect(
        session.run.dataset.dir,
        list(of_mask),
        mask_facts,
        store=store_of(session.run),
        title="counting regions",
    )
    for mask, name in of_mask.items():
        pixels.objects[name].drawn += facts[mask].regions


def _has_maps(session: Session, network: Network) -> bool:
    """Whether maps can be made and compared; prints why not."""
    if not network.model.has_map:
        say(f"{network.title}: has no anomaly map; --maps adds nothing")
        return False
    if not any(record.mask for record in session.splits["test"]):
        say(f"{session.run.dataset.dir}: no test image has a mask; --maps adds nothing")
        return False
    return True


def _merged(folder: Path, reports: Sequence[Report], about: Mapping[str, Any]) -> Report:
    """One report of the networks of all objects."""
    titles = " / ".join(dict.fromkeys(report.title for report in reports))
    pixels = [report.pixels for report in reports if report.pixels is not None]
    verdicts = [report.verdicts for report in reports if report.verdicts is not None]
    return Report(
        folder,
        f"{titles}, one model per object",
        pd.concat([report.scores for report in reports], ignore_index=True),
        PixelFigures.merged(pixels) if pixels else None,
        about,
        "each object at the threshold of its own model",
        pd.concat(verdicts) if len(verdicts) == len(reports) else None,
    )


def _write_seeds(run: Run, runs: Sequence[Run], reports: Sequence[Report]) -> None:
    """Writes and prints ``<exp.dir>/<stage>_seeds.{md,csv,json}``."""
    seeds = [one.misc.seed for one in runs]
    first = reports[0]
    name = "_".join(first.folder.relative_to(runs[0].exp.dir).parts)
    about = {**first.about, "seed": " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))}
    title = "; ".join(dict.fromkeys(report.title for report in reports))
    tables = {seed: report.table for seed, report in zip(seeds, reports, strict=True)}
    text = write_seed_tables(run.exp.dir / f"{name}_seeds", title, tables, about)
    say(f"\n{text}\n{run.exp.dir}: {name}_seeds.md, {name}_seeds.csv, {name}_seeds.json")
