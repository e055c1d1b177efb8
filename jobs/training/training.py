"""Trains the stages that are not finished: the teacher, then the student, or a baseline."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.captions import says_only_the_label
from datasets.image_text import Batches
from datasets.record import to_meta
from jobs.build import (
    build_learner,
    build_model,
    build_optimizer,
    build_schedule,
    check_batch,
    check_training,
    load_model,
    training_batches,
)
from jobs.checking import check_data, check_scorable
from jobs.data import keep_broken, read_data, read_with_broken, resolved, store_of
from jobs.experiments import keep_list, of_objects, of_seeds
from jobs.job import Job
from jobs.training.fitting import fit_once
from jobs.training.keeping import Keeper, restore
from jobs.training.teacher import compute_once, guide_file
from jobs.training.threshold import check_threshold, find_verdicts
from jobs.training.tokens import ask_encoders
from models.base import AnomalyModel
from models.methods import METHODS
from models.objectives.base import Learner, LiveTeacher, Targets
from options.dump import dumps, without_local
from options.schema import Run, Stage
from utils.checkpoint import identity, num_parameters
from utils.console import say
from utils.device import Machine
from utils.errors import Interrupted, UserError
from utils.provenance import environment
from utils.ranks import is_main, joined, main_first, synchronized, wait_for_all
from utils.training import Epochs, fit


def train_seeds(run: Run, seeds: int | None) -> None:
    """Trains the unfinished stages of an experiment, or of each of its seeds.

    Args:
        run: The experiment.
        seeds: Number of seeds; ``None``: the experiment itself.

    Raises:
        UserError: As :func:`train`.
    """
    with joined(Machine.choose(run.misc.device, run.misc.precision).device):
        for one in of_seeds(run, seeds):
            if seeds is not None:
                say(f"seed {one.misc.seed}: {one.exp.dir}")
            train(one)


def train(run: Run) -> None:
    """Trains the stages of ``run`` that are not finished, teacher first.

    Raises:
        UserError: If data, weights, options or folders are wrong.
    """
    machine = Machine.choose(run.misc.device, run.misc.precision)
    stages = {name: stage for name, stage in run.stages.items() if stage.needs_training}
    if not stages:
        say("nothing to train: these networks are used as they are; next: test.py")
        return
    for stage in stages.values():
        if not stage.normal_only:
            check_training(stage)
    with joined(machine.device):
        # All data are read before the first training, so that mistakes in them are found early.
        # The main process reads the files; the others find the results in the cache.
        with main_first():
            splits, broken = read_with_broken(run.dataset, store_of(run), run.exp.dir)
            check_scorable(run, splits)
            jobs = [
                Job(part, name, images, read_data(part, name, images), machine)
                for part, images in of_objects(resolved(run, splits), splits)
                for name in stages
            ]
        for job in jobs:
            _check_validation(job)
            check_threshold(job)
            check_batch(job)
        check_data(jobs[0].run, [job.data for job in jobs])
        keep_broken(run, broken)
        for job in jobs:
            if run.dataset.per_object:
                say(f"\n{', '.join(job.run.dataset.objects)}")
            _train_stage(job)


def _check_validation(job: Job) -> None:
    """Raises UserError if the validation images cannot tell a good epoch from a bad one."""
    kinds = {(record.object, record.label) for record in job.data.val}
    if job.stage.engine.keep == "best" and not any(
        (name, 1 - label) in kinds for name, label in kinds
    ):
        raise UserError(
            f"{job.name}: no object has normal and anomalous images among the "
            f"{len(job.data.val)} validation images of {job.data.root}, so no epoch can be chosen "
            "as the best; write another dataset.val_fraction, or engine.keep: last"
        )


def _train_stage(job: Job) -> None:
    """Trains one network, or resumes its training, unless it is finished."""
    with job.folder.locked():
        _train_locked(job)
        find_verdicts(job)


def _train_locked(job: Job) -> None:
    folder, stage, machine = job.folder, job.stage, job.machine
    teacher = guide_file(job.run, stage, job.splits)
    teacher_hash = identity(teacher) if teacher else ""
    about: dict[str, Any] = {
        "data": job.data.hash,
        "teacher": teacher_hash[:12] or None,
        "precision": str(machine),
        **environment(machine.device),
    }
    with main_first():
        if is_main():
            folder.claim(job.run, about)
    state = folder.load_state()
    done = len(state["history"]) if state else 0
    if done >= stage.engine.epochs:
        folder.check_finished()
        say(f"{job.name}: finished already: {folder.best}")
        return

    _warn_of_labels(job)
    if stage.normal_only:
        _fit_once(job, about)
        return
    targets, live_teacher = _targets(job, teacher, teacher_hash)
    learner = machine.place(build_learner(job, targets))
    if stage.engine.compile:
        learner.model.compile()
    optimizer = build_optimizer(stage, learner)
    if state is None:
        _adapt(job, learner.model)
    else:
        restore(learner, optimizer, state, folder)
    unseen = _keep_features(job, learner.model)
    job = job if live_teacher else unseen  # such a teacher looks at the pixels
    batches = training_batches(job, live_teacher)
    about |= _describe(job, about)
    keeper = Keeper(job, learner, optimizer, about, history=state["history"] if state else [])
    del state  # three times the size of the weights, in each process
    _announce(job, learner.model, done)
    _fit(job, learner, optimizer, batches, keeper)
    keeper.close()
    say(f"{job.name}: done: {folder.best}")


def _fit_once(job: Job, about: dict[str, Any]) -> None:
    """Trains a network that learns from normal images in one pass; the main process does it."""
    model = job.machine.place(build_model(job.run, job.name))
    job = _keep_features(job, model)
    about |= _describe(job, about)
    _announce(job, model, 0)
    if is_main():
        fit_once(job, model, about)
    wait_for_all()
    say(f"{job.name}: done: {job.folder.best}")


def _keep_features(job: Job, model: AnomalyModel) -> Job:
    """The job, without the pixels that nobody looks at any more."""
    # All training images, whatever validation and max_anomalies take: one file serves all seeds.
    data = job.data
    store = ask_encoders(model, job.stage, data.store, data.splits["train"], job.machine)
    return replace(job, data=replace(data, store=store))


def _describe(job: Job, about: dict[str, Any]) -> dict[str, Any]:
    """Describes the training in its folder; returns what else is stored with the weights."""
    if is_main():
        lists = {"train": job.data.train, "val": job.data.val, "test": job.data.splits["test"]}
        job.folder.describe(job.run, about, to_meta(lists))
        keep_list(job.run, job.splits)
    # Without folders, so that the same experiment gives the same file, byte by byte.
    objects = sorted({record.object for record in job.data.train})
    return {"stage": job.name, "objects": objects, "options": dumps(without_local(job.run))}


def _fit(
    job: Job,
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    keeper: Keeper,
) -> None:
    epochs = job.stage.engine.epochs
    try:
        fit(
            synchronized(learner, job.machine.device),
            batches,
            optimizer,
            build_schedule(job.stage),
            epochs=Epochs(job.name, range(keeper.num_saved, epochs), job.seed()),
            machine=job.machine,
            on_epoch=keeper,
        )
    except KeyboardInterrupt:
        text = f"{job.name}: stopped after epoch {keeper.num_saved} of {epochs}"
        raise Interrupted(text) from None


def _targets(
    job: Job, teacher: Path | None, teacher_hash: str
) -> tuple[Targets | None, Stage | None]:
    """The targets from the teacher, and the options of a teacher that runs at every step."""
    if teacher is None:
        return None, None
    model, stage, _ = load_model(teacher, job.stage)
    live = LiveTeacher(job.machine.place(model))
    if job.stage.engine.targets == "live":
        return live, stage
    return compute_once(job, live, stage, teacher_hash), None


def _announce(job: Job, model: AnomalyModel, done: int) -> None:
    total, trained = num_parameters(model)
    resumed = f"; resumed after epoch {done}" if done else ""
    say(
        f"{job.name}: {job.stage.model.name}, {_spelled(total)} parameters ({_spelled(trained)} "
        f"trained), {len(job.data.train)} training images, {len(job.data.val)} validation images, "
        f"{job.machine}{resumed}"
    )


def _spelled(number: int) -> str:
    """As in "427.9 M" or, of small numbers, "43,008"."""
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"


def _warn_of_labels(job: Job) -> None:
    """Prints a warning if the texts for a network only tell the label."""
    stage, data = job.stage, job.data
    reads_labels = METHODS[stage.model.name].reads_text and stage.captions.policy != "object"
    if reads_labels and says_only_the_label(data.train):
        text = next(record.defect for record in data.train if record.label)
        say(
            f"{job.name}: warning: the text of these images is only their label (that of an "
            f"anomalous one is always {text!r}), so there is nothing else to learn from it; "
            "captions.dropout, or captions.policy=object, makes the network look at the image"
        )


def _adapt(job: Job, model: AnomalyModel) -> None:
    """Adapts encoders to a few hundred training images before the training.

    Each process uses its own images; the training starts with the encoders of the main process.
    """

    def images() -> Iterator[Tensor]:  # most encoders ask for none
        batches = training_batches(job)
        count = max(256 * len(batches) // batches.num_images, 1)
        for batch in itertools.islice(batches.epoch(0), count):
            yield batch.image.to(job.machine.device)

    for encoder in model.encoders():
        encoder.adapt(images())
