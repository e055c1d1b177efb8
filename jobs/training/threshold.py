"""The threshold of a trained network, found on its validation images and stored with it."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from datasets.record import Record
from jobs.build import evaluation_batches, load_model
from jobs.data import store_of
from jobs.job import Job
from jobs.scoring import score_all
from jobs.training.tokens import ask_encoders
from options.dump import plain
from options.schema import Rule, ThresholdOptions
from utils.checkpoint import add_verdicts
from utils.console import say
from utils.errors import UserError
from utils.ranks import is_main, wait_for_all
from utils.thresholds import NEEDS_ANOMALOUS, NEEDS_NORMAL
from utils.verdicts import EVERY, Verdicts


def check_threshold(job: Job) -> None:
    """Raises UserError if the validation images cannot give the threshold that was asked for."""
    options = job.stage.threshold
    if options.rule == "auto":
        return
    rule, _ = _rule(options)
    groups = {job.name: list(job.data.val)}
    for record in job.data.val if options.per_object else ():
        groups.setdefault(f"{job.name}, {record.object}", []).append(record)
    for name, records in groups.items():
        normal, anomalous = _count(records)
        if rule in NEEDS_ANOMALOUS and not anomalous:
            raise UserError(
                f"{name}: threshold.rule {rule} needs anomalous validation images, and there are "
                "none; write threshold.rule.max_false_alarms=0.05, which needs normal ones only"
            )
        if rule in NEEDS_NORMAL and not normal:
            raise UserError(
                f"{name}: threshold.rule {rule} needs normal validation images, and there are "
                "none; write another dataset.val_fraction, or threshold.rule.value=0.5"
            )


def find_verdicts(job: Job) -> None:
    """Stores threshold and calibration in ``best.safetensors``, unless they are there already."""
    file, options = job.folder.best, job.stage.threshold
    asked = plain(options)
    stored = Verdicts.of(file)
    if stored is not None and stored.options == asked:
        return
    rule, limit = _rule(options)
    normal, _ = _count(job.data.val)
    if rule == "auto" and not normal:
        say(
            f"{job.name}: no threshold: there are no normal validation images to find one on "
            "(dataset.val_fraction), so predict.py will give scores without verdicts"
        )
        return
    verdicts = Verdicts.find(
        _validation_scores(job),
        rule,
        limit=limit,
        per_object=options.per_object,
        unsure=options.unsure,
        seed=job.seed("threshold"),
    )
    if is_main():
        add_verdicts(file, replace(verdicts, options=asked).to_json())
    wait_for_all()
    say(f"{job.name}: {verdicts}")
    if rule == "auto" and not verdicts.threshold_of(EVERY).num_anomalous:
        say(
            f"{job.name}: no validation image is anomalous, so the threshold only limits false "
            "alarms, and nothing is calibrated"
        )


def _validation_scores(job: Job) -> pd.DataFrame:
    """Scores of the stored weights, as :func:`utils.evaluation.score_images`."""
    if not job.data.val:
        return pd.DataFrame({"object": [], "label": [], "score": []})
    model, stage, _ = load_model(job.folder.best, job.stage)
    model.store = store_of(job.run)
    job.machine.place(model)
    data, machine = job.data, job.machine
    store = ask_encoders(model, job.stage, data.store, data.splits["train"], machine)
    batches = evaluation_batches(store, stage, data.val, machine.device)
    return score_all(model, batches, job.machine)


def _rule(options: ThresholdOptions) -> tuple[str, float | None]:
    return options.rule.chosen if isinstance(options.rule, Rule) else (options.rule, None)


def _count(records: Sequence[Record]) -> tuple[int, int]:
    """Number of normal and of anomalous ones."""
    anomalous = sum(record.label for record in records)
    return len(records) - anomalous, anomalous
