"""The second job: score the test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.captions import Captions, Policy
from datasets.record import Record, data_hash
from models.base import AnomalyModel
from options.assemble import (
    build_model,
    evaluation_batches,
    load_model,
    read_splits,
)
from options.folder import StageFolder
from options.schema import STAGES, Run, Stage
from options.scoring import score_all
from utils.checkpoint import write_bytes
from utils.device import Machine
from utils.errors import UserError
from utils.evaluation import per_object
from utils.provenance import environment
from utils.ranks import (
    is_main,
    joined,
)
from utils.runlog import say
from utils.tables import write_tables


def evaluate(run: Run, source: str, *, oracle_text: bool = False, untrained: bool = False) -> None:
    """Scores every test image once per network and writes scores and tables.

    Args:
        run: The experiment; its stages must be trained.
        source: The options as the user wrote them, for the tables' captions.
        oracle_text: Also score the teacher with the true captions, as an upper bound.
        untrained: Score the networks as they are before their training instead.

    Raises:
        UserError: If a stage is not trained, or was trained with other options.
    """
    machine = Machine.choose(run.misc.device, run.misc.precision)
    splits = read_splits(run)
    shared = {
        "data": data_hash(splits),
        "split": f"{run.dataset.name} {run.dataset.split} test".replace("  ", " "),
        "seed": run.misc.seed,
        "options": source,
        "precision": str(machine),
        **environment(machine.device),
    }
    tester = _Tester(run, splits["test"], machine, shared)
    stages = [name for name in STAGES if isinstance(getattr(run, name), Stage)]
    with joined(machine.device):
        for name in stages:
            if untrained:
                tester.untrained(name)
            else:
                tester.trained(name, source, oracle_text=oracle_text)


@dataclass(frozen=True)
class _Tester:
    run: Run
    records: Sequence[Record]
    machine: Machine
    about: dict[str, Any]

    def untrained(self, name: str) -> None:
        stage: Stage = getattr(self.run, name)
        model = build_model(self.run, name, stage)
        folder = self.run.exp.dir / name / "untrained"
        self.report(model, stage, folder, f"{stage.model.name}, untrained")

    def trained(self, name: str, source: str, *, oracle_text: bool) -> None:
        folder = StageFolder(self.run.exp.dir / name, name)
        if not folder.best.is_file():
            raise UserError(f"{folder.path}: nothing is trained yet; first: python run.py {source}")
        folder.check(self.run, self.about)
        model, stage, _ = load_model(folder.best)
        done = folder.num_epochs()
        title = stage.model.name
        if done < stage.engine.epochs:
            title += f", UNFINISHED ({done} of {stage.engine.epochs} epochs)"
        if not model.reads_text:
            self.report(model, stage, folder.path, f"{title}, image only")
            return
        self.report(model, stage, folder.path, f"{title}, told the object's name only")
        if oracle_text:
            said = f"{title}, oracle text (told the truth: an upper bound, not a detector)"
            policy = stage.captions.policy
            self.report(model, stage, folder.path / "oracle_text", said, policy)

    def report(
        self,
        model: AnomalyModel,
        stage: Stage,
        folder: Path,
        title: str,
        policy: Policy = "object",
    ) -> None:
        captions = Captions(policy, 0.0, 0)
        batches = evaluation_batches(
            self.run, stage, self.records, self.records, self.machine.device, captions
        )
        scores = score_all(self.machine.place(model), batches, self.machine)
        if not is_main():
            return
        write_bytes(scores.to_csv(index=False).encode(), folder / "scores.csv")
        text = write_tables(folder, title, per_object(scores), self.about)
        say(f"\n{text}\n{folder}: scores.csv, table.md, table.csv, table.json")
