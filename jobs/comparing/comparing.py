"""The third job: methods side by side on one list of test images."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.cache import content_key
from datasets.record import Record, Splits, data_hash
from jobs.comparing.table import Method, latex, long_table, markdown, read_published
from jobs.data import read_tested
from jobs.scoring import score_test
from jobs.testing import open_network
from jobs.training.training import train
from models.base import AnomalyModel
from options.comparison_file import Column, Comparison
from options.dump import flatten
from options.schema import Dataset, Run, Stage
from utils.checkpoint import state_hash, write_bytes
from utils.console import say
from utils.device import Machine
from utils.errors import UserError
from utils.evaluation import per_object
from utils.provenance import code_hash, commit, environment
from utils.ranks import joined, share

_PUBLISHED = (
    "As published, on other images: the prevalence differs from the table above and between these "
    "columns, and AUPR with it (chance gives the prevalence). Best in bold among columns of one "
    "split."
)
_TRAINED_ON = (
    "Trained on nothing: as its encoder comes; on a data set: on images of that one alone; on "
    "these objects: on their own training images, so many of them anomalous."
)
_ORACLE = "told the truth: an upper bound, not a detector, and never in bold"


def compare(comparison: Comparison, source: str) -> None:
    """Scores every column that has what it needs and writes the tables, in ``comparison.dir``.

    A column that cannot be scored gets a footnote that says why. Scores are kept in
    ``<dir>/<column>`` and used again as long as network, options, images and program are the same.

    Args:
        comparison: What to compare.
        source: The comparison as the user wrote it, for the captions.

    Raises:
        UserError: If there are no images, if no column can be scored, or in several processes.
    """
    if share().world_size > 1:
        raise UserError("compare.py: scores in one process; start it without torchrun")
    published = read_published(comparison.published) if comparison.published else []
    splits = read_tested(Dataset(**vars(comparison.dataset)))
    machine = Machine.choose(comparison.misc.device, comparison.misc.precision)
    scorer = _Scorer(comparison, splits, machine)
    bugs: list[Exception] = []
    methods = [scorer.method(name, column, bugs) for name, column in comparison.chosen.items()]
    objects = sorted({record.object for record in splits["test"]})
    caption = _caption(comparison, splits, machine, source)
    text = _write(comparison, methods, objects, caption, published)
    say(f"\n{text}\n{comparison.dir}: comparison.md, comparison.csv, comparison.tex")
    if bugs:
        raise bugs[0]
    if not any(method.tables for method in methods):
        raise UserError(f"{comparison.dir}: no column could be scored; the footnotes say why")


def train_columns(comparison: Comparison) -> None:
    """Trains what the columns lack, one after the other, so that :func:`compare` can score them.

    Raises:
        UserError: As :func:`jobs.training.training.train`.
    """
    machine = Machine.choose(comparison.misc.device, comparison.misc.precision)
    with joined(machine.device):
        for name, column in comparison.chosen.items():
            for seed in comparison.all_seeds:
                run = comparison.run_of(column, seed)
                if run.stages[column.stage].needs_training:
                    say(f"{column.title or name}: {run.exp.dir}")
                    train(run)


@dataclass(frozen=True)
class _Scorer:
    comparison: Comparison
    splits: Splits
    machine: Machine

    @property
    def records(self) -> Sequence[Record]:
        return self.splits["test"]

    def method(self, name: str, column: Column, bugs: list[Exception]) -> Method:
        """A column with its figures, or with the reason why it has none."""
        title = column.title or name
        notes = [note for note in (column.note, _ORACLE * (column.text == "oracle")) if note]
        tables: list[pd.DataFrame] = []
        trained_on = column.trained_on
        try:
            for seed in self.comparison.all_seeds:
                run = self.comparison.run_of(column, seed)
                trained_on = trained_on or _trained_on(run, column.stage, self.splits)
                folder = self.comparison.dir / name
                folder = folder / f"seed_{seed}" if self.comparison.seeds > 1 else folder
                scores, said = self.scores(column, run, folder)
                tables.append(per_object(scores))
                notes += [said] if "UNFINISHED" in said else []
                if not _depends_on_seed(run.stages[column.stage]):
                    break
        except UserError as error:
            tables, notes = [], ["; ".join(str(error).splitlines())]
        except Exception as error:  # noqa: BLE001  a bug of one column; raised after the others
            tables, notes = [], [f"failed ({type(error).__name__}: {error})"]
            bugs.append(error)
        if not tables:
            say(f"{title}: cannot be scored: {notes[0]}")
        facts, note = {"trained on": trained_on}, "; ".join(dict.fromkeys(notes))
        group = name if column.text == "oracle" else ""  # an upper bound competes with nobody
        return Method(title, tables, facts, note, group=group)

    def scores(self, column: Column, run: Run, folder: Path) -> tuple[pd.DataFrame, str]:
        """The scores of one network, and what it is called; those of an earlier run if they fit."""
        about = {"data": data_hash(self.splits)}
        command = self.comparison.training_command(column)
        model, stage, said = open_network(run, column.stage, about, command)
        if column.text == "oracle" and not model.reads_text:
            raise UserError(f"{column.options}: text: oracle: {stage.model.name} reads no text")
        title = column.title or folder.name
        about |= self.identity(run, stage, column, model)
        if (found := _earlier(folder, about)) is not None:
            say(f"{title}: the scores in {folder} are used again; remove them to score anew")
            return found, said
        start = time.perf_counter()
        policy = stage.captions.policy if column.text == "oracle" else "object"
        found = score_test(model, run, stage, self.splits, self.machine, policy=policy)
        write_bytes(found.to_csv(index=False).encode(), folder / "scores.csv")
        write_bytes(
            json.dumps(about, indent=1).encode(), folder / "about.json"
        )  # last: all is there
        seconds = time.perf_counter() - start
        say(f"{title}: {len(found)} images in {seconds:.0f} s ({folder}/scores.csv)")
        return found, said

    def identity(
        self, run: Run, stage: Stage, column: Column, model: AnomalyModel
    ) -> dict[str, Any]:
        """Everything that the scores depend on."""
        return {
            "weights": state_hash(model),
            "options": dict(flatten(stage)),
            "text": column.text,
            "seed": run.misc.seed,
            "pictures": content_key(
                run.dataset.dir, [r.path for r in self.records], stage.image.view
            ),
            "precision": str(self.machine),
            "code": code_hash(),
            **{k: v for k, v in environment(self.machine.device).items() if k != "commit"},
        }


def _earlier(folder: Path, about: dict[str, Any]) -> pd.DataFrame | None:
    try:
        if json.loads((folder / "about.json").read_text(encoding="utf-8")) != about:
            return None
        return pd.read_csv(
            folder / "scores.csv",
            converters={"score": float},  # exactly
            dtype={"path": str, "object": str},
            keep_default_na=False,
        )
    except (OSError, ValueError):
        return None


def _num_references(stage: Stage) -> int:
    """Normal images of each object that a method without training looks at first."""
    return int(stage.model.options.get("shots", 0))


def _depends_on_seed(stage: Stage) -> bool:
    return stage.needs_training or _num_references(stage) > 0


def _trained_on(run: Run, name: str, splits: Splits) -> str:
    """What a network learned from, in a few words."""
    auxiliary, stage = run.dataset.auxiliary, run.stages[name]
    if name == "baseline" and auxiliary is not None:
        return " ".join([auxiliary.dir.name, *auxiliary.objects])
    if not stage.needs_training:
        shots = _num_references(stage)
        images = "image" if shots == 1 else "images"
        return f"{shots} normal {images} an object" if shots else "nothing"
    anomalous = sum(record.label for record in splits["train"])
    return f"these objects ({anomalous} anomalous)"


def _caption(comparison: Comparison, splits: Splits, machine: Machine, source: str) -> str:
    records = splits["test"]
    labels = pd.DataFrame(
        {"object": [r.object for r in records], "label": [r.label for r in records]}
    )
    table = per_object(labels.assign(score=labels["label"]))
    shares, images = table["prevalence"].drop("mean"), comparison.dataset
    by_object = f"{shares.mean():.1f}"
    if shares.min() < shares.max():
        by_object += f" in the mean, {shares.min():.1f} to {shares.max():.1f} by object"
    seeds = comparison.all_seeds
    over = f"seed {seeds[0]}"
    if len(seeds) > 1:
        over = f"mean ± standard deviation over the seeds {', '.join(map(str, seeds))}"
    single = table.index[table["auroc"].isna()]
    left_out = f" (without {', '.join(single)}: one label only)" if len(single) else ""
    return (
        f"{comparison.title}: (AUROC, AUPR) in percent, best in bold; mean over objects{left_out}. "
        f"{len(records)} test images of {images.dir} ({f'{images.name} {images.split}'.strip()}), "
        f"{sum(record.label for record in records)} anomalous; prevalence (the AUPR of chance) "
        f"{by_object}. {_TRAINED_ON} {over.capitalize()}, {machine}, commit {commit()}, data "
        f"{data_hash(splits)}; python compare.py {source}."
    )


def _write(
    comparison: Comparison,
    methods: Sequence[Method],
    objects: Sequence[str],
    caption: str,
    published: Sequence[Method],
) -> str:
    """Writes the tables and returns the Markdown."""
    folder, layout = comparison.dir, comparison.layout
    text = markdown(methods, caption, layout, objects)
    tex = latex(methods, caption, "tab:comparison", layout, objects)
    if published:
        known = f"{_PUBLISHED} Source: {comparison.published}."
        text += f"\n{markdown(published, known)}"
        tex += f"\n{latex(published, known, 'tab:published')}"
        write_bytes(_csv(published), folder / "published.csv")
    write_bytes(text.encode(), folder / "comparison.md")
    write_bytes(tex.encode(), folder / "comparison.tex")
    write_bytes(_csv(methods), folder / "comparison.csv")
    return text


def _csv(methods: Sequence[Method]) -> bytes:
    return long_table(methods).to_csv(index=False, float_format="%.4f").encode()
