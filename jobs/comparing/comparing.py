"""Scores methods side by side on one list of test images."""

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.augment import Augment
from datasets.pixels import content_parts
from datasets.record import Record, Splits, data_hash
from jobs.comparing.differences import differences, differences_markdown
from jobs.comparing.localizing import FIGURES, located
from jobs.comparing.table import Method, latex, long_table, markdown, read_published
from jobs.data import image_store, learned_from, read_tested, resolved
from jobs.session import Network, Session
from jobs.training.tokens import ask_encoders
from jobs.training.training import train
from options.comparison_file import Column, Comparison
from options.dump import flatten
from options.schema import Dataset, Run, Stage
from utils.cache_files import hash_of
from utils.checkpoint import state_hash, write_bytes
from utils.console import say
from utils.device import Machine
from utils.errors import UserError
from utils.evaluation import per_object
from utils.provenance import code_hash, commit, environment
from utils.ranks import joined, share
from utils.store import Store

_PUBLISHED = (
    "As published, on other images: the prevalence, which is the AUPR of chance, differs from the "
    "table above and between these columns. Best in bold among columns of one split."
)
_TRAINED_ON = (
    "Trained on nothing: the weights of its encoder are used as they are; on a data set: only on "
    "images of that one; on these objects: on their training images (number of anomalous ones)."
)
_ORACLE = "its captions tell the label: an upper bound, not a detector, and never in bold"


def compare(comparison: Comparison) -> None:
    """Scores the columns and writes the tables to ``comparison.dir``.

    A column that cannot be scored gets a footnote with the reason. Scores are kept in
    ``<dir>/<column>`` and used again as long as network, options, images and program are the same.

    Raises:
        UserError: If there are no images, if no column can be scored, or in several processes.
    """
    if share().world_size > 1:
        raise UserError("compare.py: scores in one process; start it without torchrun")
    published = read_published(comparison.published) if comparison.published else []
    folds = {fold: _splits(comparison, fold) for fold in comparison.all_folds}
    tested = [record for splits in folds.values() for record in splits["test"]]
    machine = Machine.choose(comparison.misc.device, comparison.misc.precision)
    bugs: list[Exception] = []
    methods = [_method(comparison, name, folds, machine, bugs) for name in comparison.chosen]
    objects = sorted({record.object for record in tested})
    caption = _caption(comparison, tested, data_hash(next(iter(folds.values()))), machine)
    text = _write(comparison, methods, objects, caption, published)
    say(f"\n{text}\n{comparison.dir}: comparison.md, comparison.csv, comparison.tex")
    if bugs:
        raise bugs[0]
    if not any(method.tables for method in methods):
        raise UserError(f"{comparison.dir}: no column could be scored; the footnotes say why")


def train_columns(comparison: Comparison) -> None:
    """Trains the missing networks of the columns, one after the other.

    Raises:
        UserError: As :func:`jobs.training.training.train`.
    """
    machine = Machine.choose(comparison.misc.device, comparison.misc.precision)
    with joined(machine.device):
        for name, column in comparison.chosen.items():
            for seed, fold in itertools.product(comparison.all_seeds, comparison.all_folds):
                run = comparison.run_of(name, seed, fold)
                if run.stages[column.stage].needs_training:
                    say(f"{column.title or name}: {run.exp.dir}")
                    train(run)


def _splits(comparison: Comparison, fold: int | None) -> Splits:
    dataset = Dataset(**vars(comparison.dataset_of(fold)))
    return read_tested(dataset, Store(dataset.cache))


def _method(
    comparison: Comparison,
    name: str,
    folds: Mapping[int | None, Splits],
    machine: Machine,
    bugs: list[Exception],
) -> Method:
    """A column with its figures, or with the reason why it has none."""
    column = comparison.chosen[name]
    title = column.title or name
    notes = [note for note in (column.note, _ORACLE * (column.text == "oracle")) if note]
    scores: list[pd.DataFrame] = []
    trained_on = column.trained_on
    try:
        for seed in comparison.all_seeds:
            parts = []
            for fold, splits in folds.items():
                run = comparison.run_of(name, seed, fold)
                trained_on = trained_on or _trained_on(run, column.stage, splits)
                folder = comparison.place_of(comparison.dir / name, seed, fold)
                session = Session(resolved(run, splits), splits, machine, "compare.py")
                part, network = _scores(session, column, folder, comparison.localization)
                parts.append(part)
                notes += [network.title] if "UNFINISHED" in network.title else []
            scores.append(pd.concat(parts, ignore_index=True))
            if not _depends_on_seed(run.stages[column.stage]):
                break
    except UserError as error:
        scores, notes = [], ["; ".join(str(error).splitlines())]
    except Exception as error:  # noqa: BLE001  a bug of one column; raised after the others
        scores, notes = [], [f"failed ({type(error).__name__}: {error})"]
        bugs.append(error)
    if not scores:
        say(f"{title}: cannot be scored: {notes[0]}")
    facts, note = {"trained on": trained_on}, "; ".join(dict.fromkeys(notes))
    group = name if column.text == "oracle" else ""  # an upper bound is never the best
    tables = [per_object(of_seed) for of_seed in scores]
    return Method(title, tables, facts, note, group=group, scores=scores)


def _scores(
    session: Session, column: Column, folder: Path, with_maps: bool
) -> tuple[pd.DataFrame, Network]:
    """The scores of one network; read from ``folder`` if nothing has changed since then."""
    network = session.network(column.stage)
    if column.text == "oracle" and not network.model.reads_text:
        method = network.stage.model.name
        raise UserError(f"{column.options}: text: oracle: {method} reads no text")
    title = column.title or folder.name
    about = {**_identity(session, network, column), "localization": with_maps}
    if (earlier := _earlier(folder, about)) is not None:
        say(f"{title}: the scores in {folder} are used again; remove them to score again")
        return earlier, network
    start = time.perf_counter()
    policy = network.stage.captions.policy if column.text == "oracle" else "object"
    # Grad-CAM needs the network itself.
    if network.model.has_map or not with_maps:
        # Columns with the same frozen encoder, and their seeds, share its features.
        stage, store = network.stage, image_store(session.run, session.splits)
        stage = replace(stage, augment=Augment())
        session.machine.place(network.model)
        ask_encoders(network.model, stage, store, session.splits["test"], session.machine)
    scores = session.scores(network, policy=policy)
    if with_maps:
        scores = located(session, network, scores)
    write_bytes(scores.to_csv(index=False).encode(), folder / "scores.csv")
    # Last: it marks the scores as complete.
    write_bytes(json.dumps(about, indent=1).encode(), folder / "about.json")
    seconds = time.perf_counter() - start
    say(f"{title}: {len(scores)} images in {seconds:.0f} s ({folder}/scores.csv)")
    return scores, network


def _identity(session: Session, network: Network, column: Column) -> dict[str, Any]:
    """Everything that the scores depend on."""
    run, machine = session.run, session.machine
    references = session.splits["train"] if network.model.num_references else []
    records = [*session.splits["test"], *references]
    digests = image_store(run, session.splits).digests(records)
    return {
        "data": data_hash(session.splits),
        "weights": state_hash(network.model),
        "options": dict(flatten(network.stage)),
        "text": column.text,
        "seed": run.misc.seed,
        "pictures": hash_of(content_parts(digests, network.stage.image.view)),
        "precision": str(machine),
        "code": code_hash(),
        **{k: v for k, v in environment(machine.device).items() if k != "commit"},
    }


def _earlier(folder: Path, about: dict[str, Any]) -> pd.DataFrame | None:
    try:
        if json.loads((folder / "about.json").read_text(encoding="utf-8")) != about:
            return None
        return pd.read_csv(
            folder / "scores.csv",
            converters=dict.fromkeys(("score", *FIGURES), lambda cell: float(cell or "nan")),
            dtype={"path": str, "object": str},
            keep_default_na=False,
        )
    except (OSError, ValueError):
        return None


def _num_references(stage: Stage) -> int:
    """Number of normal reference images per object of a method without training."""
    return int(stage.model.options.get("shots", 0))


def _depends_on_seed(stage: Stage) -> bool:
    return stage.needs_training or _num_references(stage) > 0


def _trained_on(run: Run, name: str, splits: Splits) -> str:
    """The training data of a network, for the table."""
    auxiliary, stage = run.dataset.auxiliary, run.stages[name]
    if name == "baseline" and auxiliary is not None:
        return " ".join([auxiliary.dir.name, *auxiliary.objects])
    if not stage.needs_training:
        shots = _num_references(stage)
        images = "image" if shots == 1 else "images"
        return f"{shots} normal {images} an object" if shots else "nothing"
    if stage.normal_only:
        return "these objects (normal images only)"
    anomalous = sum(record.label for record in learned_from(run, splits["train"]))
    return f"these objects ({anomalous} anomalous)"


def _caption(comparison: Comparison, records: Sequence[Record], data: str, machine: Machine) -> str:
    labels = pd.DataFrame(
        {"object": [r.object for r in records], "label": [r.label for r in records]}
    )
    table = per_object(labels.assign(score=labels["label"]))
    objects, images = table.drop("mean"), comparison.dataset
    single = objects.index[objects["auroc"].isna()]
    has_any = len(single) < len(objects)
    shares = (objects.drop(single) if has_any else objects)["prevalence"]
    by_object = f"{shares.mean():.1f}"
    if shares.min() < shares.max():
        by_object += f" in the mean, {shares.min():.1f} to {shares.max():.1f} by object"
    seeds = comparison.all_seeds
    over = f"seed {seeds[0]}"
    if len(seeds) > 1:
        over = f"mean ± standard deviation over the seeds {', '.join(map(str, seeds))}"
    tested = "test images"
    if comparison.folds:
        tested = (
            f"training images, each of {comparison.folds} folds scored by a network of the others,"
        )
    left_out = f" (without {', '.join(single)}: one label only)" if len(single) else ""
    return (
        f"{comparison.title}: (AUROC, AUPR) in percent, best in bold; mean over objects{left_out}. "
        f"{len(records)} {tested} of {images.dir} ({f'{images.name} {images.split}'.strip()}), "
        f"{sum(record.label for record in records)} anomalous; prevalence (the AUPR of chance) "
        f"{by_object}. {_TRAINED_ON} {over.capitalize()}, {machine}, commit {commit()}, data "
        f"{data}; python compare.py {comparison.command}."
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
    if comparison.against:
        text += _differences(comparison, methods)
    if published:
        below = f"{_PUBLISHED} Source: {comparison.published}."
        text += f"\n{markdown(published, below)}"
        tex += f"\n{latex(published, below, 'tab:published')}"
        write_bytes(_csv(published), folder / "published.csv")
    write_bytes(text.encode(), folder / "comparison.md")
    write_bytes(tex.encode(), folder / "comparison.tex")
    write_bytes(_csv(methods), folder / "comparison.csv")
    return text


def _differences(comparison: Comparison, methods: Sequence[Method]) -> str:
    """Writes ``differences.csv`` and returns the table, or why there is none."""
    scores = {method.title: method.scores for method in methods}
    column = comparison.chosen[comparison.against]
    against = column.title or comparison.against
    if not scores[against]:
        return f"\nNo differences: {against} could not be scored.\n"
    table = differences(scores, against)
    csv = table.to_csv(float_format="%.4f")
    write_bytes(csv.encode(), comparison.dir / "differences.csv")
    return f"\n{differences_markdown(table, against, comparison.seeds)}"


def _csv(methods: Sequence[Method]) -> bytes:
    return long_table(methods).to_csv(index=False, float_format="%.4f").encode()
