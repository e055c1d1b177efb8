"""The first job: train what is missing."""

import itertools
from pathlib import Path

import torch

from datasets.captions import says_only_the_label
from datasets.image_text import Batches
from datasets.record import Splits, to_meta
from jobs.build import (
    build_learner,
    build_optimizer,
    build_schedule,
    check_training,
    evaluation_batches,
    load_model,
    training_batches,
)
from jobs.checking import check_data
from jobs.data import Data, read_data, read_splits
from jobs.parts import keep_list, parts_of
from jobs.run_folder import StageFolder
from jobs.training.keeping import Keeper, restore
from jobs.training.teacher import ask_once, guide_file
from models.base import AnomalyModel
from models.methods import METHODS
from models.objectives.base import LiveTeacher, TableTargets, Targets
from options.dump import dumps
from options.schema import Run, Stage
from utils.checkpoint import num_parameters
from utils.console import say
from utils.device import Machine
from utils.download import sha256_of
from utils.errors import UserError
from utils.provenance import environment
from utils.ranks import (
    is_main,
    joined,
    main_first,
    synchronized,
)
from utils.runlog import Row, RunLog
from utils.seeding import derive
from utils.training import fit


def train(run: Run) -> None:
    """Trains the stages of ``run`` that are not finished, teacher first.

    Raises:
        UserError: If data, weights or folders are not as they should be.
    """
    machine = Machine.choose(run.misc.device, run.misc.precision)
    stages = {name: stage for name, stage in run.stages.items() if stage.needs_training}
    if not stages:
        say("nothing to train: these networks are used as they are; next: test.py")
    for stage in stages.values():
        check_training(stage)
    parts = parts_of(run, read_splits(run.dataset)) if stages else []
    # First: mistakes in the data cost no training.
    jobs = [
        (part, name, read_data(part, name, splits), splits)
        for part, splits in parts
        for name in stages
    ]
    for _, name, data, _ in jobs:
        _check_choice(name, stages[name], data)
    with joined(machine.device):
        check_data(run, [data for _, _, data, _ in jobs])
        for part, name, data, splits in jobs:
            if run.dataset.per_object:
                say(f"\n{', '.join(part.dataset.objects)}")
            _train_stage(part, name, stages[name], data, splits, machine)


def _check_choice(name: str, stage: Stage, data: Data) -> None:
    """Raises UserError if the validation images cannot tell a good epoch from a bad one."""
    kinds = {(record.object, record.label) for record in data.val}
    if stage.engine.keep == "best" and not any(
        (shown, 1 - label) in kinds for shown, label in kinds
    ):
        raise UserError(
            f"{name}: no object has normal and anomalous images among the {len(data.val)} "
            f"validation images of {data.root}: no epoch is the best; write another "
            "dataset.val_fraction, or engine.keep: last"
        )


def _train_stage(
    run: Run, name: str, stage: Stage, data: Data, splits: Splits, machine: Machine
) -> None:
    folder = StageFolder(run.exp.dir / name, name)
    teacher = guide_file(run, stage, splits)
    teacher_hash = sha256_of(teacher) if teacher else ""
    about = {
        "data": data.hash,
        "teacher": teacher_hash[:12] or None,
        "precision": str(machine),
        **environment(machine.device),
    }
    with main_first():
        if is_main():
            folder.claim(run, about)
    state = folder.load_state()
    history: list[Row] = state["history"] if state else []
    if len(history) >= stage.engine.epochs:
        say(f"{name}: finished already: {folder.best}")
        return

    _judge_text(name, stage, data)
    targets: Targets | None = None
    live_stage = None  # the teacher's options, if it looks on while the student is trained
    if teacher is not None and stage.engine.targets == "live":
        guide, live_stage, _ = load_model(teacher, stage)
        targets = LiveTeacher(machine.place(guide))
    elif teacher is not None:
        targets = _ask_once(run, name, stage, data, machine, teacher, teacher_hash)
    learner = build_learner(run, name, stage, targets)
    machine.place(learner)
    if stage.engine.compile:
        learner.model.compile()
    optimizer = build_optimizer(stage, learner)
    batches = training_batches(run, name, stage, data, machine.device, live_stage)
    if state is None:
        _adapt(learner.model, batches, machine.device)
    else:
        restore(learner, optimizer, state, folder)
    best = tuple(state["best"]) if state else None
    del state  # three times the weights, which every process would hold
    if is_main():
        lists = {"train": data.train, "val": data.val, "test": data.splits["test"]}
        folder.describe(run, about, to_meta(lists))
        keep_list(run, splits)
    total, trained = num_parameters(learner.model)
    say(
        f"{name}: {stage.model.name}, {_counted(total)} parameters ({_counted(trained)} "
        f"trained), {len(data.train)} images to learn from, {len(data.val)} to choose on, {machine}"
        + (f"; goes on after epoch {len(history)}" if history else "")
    )
    keeper = Keeper(
        folder,
        learner,
        optimizer,
        evaluation_batches(
            run, stage, data.val, data.splits["train"], machine.device, root=data.root
        )
        if data.val
        else None,
        machine,
        about={**about, "stage": name, "options": dumps(run)},
        best=best,
        log=RunLog(folder.path, history) if is_main() else None,
        history=history,
        epochs=stage.engine.epochs,
        keep=stage.engine.keep,
    )
    fit(
        synchronized(learner, machine.device),
        batches,
        optimizer,
        build_schedule(stage),
        epochs=range(len(history), stage.engine.epochs),
        seed=derive(run.misc.seed, name),
        device=machine.device,
        autocast=machine.autocast,
        on_epoch=keeper,
        name=name,
    )
    keeper.close()
    say(f"{name}: done: {folder.best}")


def _counted(number: int) -> str:
    """As in "427.9 M" or, of few, "43,008"."""
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"


def _judge_text(name: str, stage: Stage, data: Data) -> None:
    """Says so if a network is about to read nothing but the labels."""
    reads_labels = METHODS[stage.model.name].reads_text and stage.captions.policy != "object"
    if reads_labels and says_only_the_label(data.train):
        text = next(record.defect for record in data.train if record.label)
        say(
            f"{name}: warning: the text of these images says nothing but their label (that of an "
            f"anomalous one is always {text!r}): there is nothing to learn from it that the label "
            "does not say; captions.dropout, or captions.policy=object, makes it look at the image"
        )


def _ask_once(
    run: Run, name: str, stage: Stage, data: Data, machine: Machine, file: Path, sha256: str
) -> TableTargets:
    """What the teacher in ``file`` says; the teacher itself is gone when this returns."""
    guide, guide_stage, _ = load_model(file, stage)
    teacher = LiveTeacher(machine.place(guide))
    return ask_once(run, name, stage, data, machine, teacher, guide_stage, sha256)


def _adapt(model: AnomalyModel, batches: Batches, device: torch.device) -> None:
    """Lets encoders that ask for it look at a few hundred training images before the training.

    With several processes each shows its own; what the main one's have seen counts for all.
    """
    for encoder in model.encoders():
        images = (batch.image.to(device) for batch in batches.epoch(0))
        encoder.adapt(itertools.islice(images, max(256 * len(batches) // batches.num_images, 1)))
