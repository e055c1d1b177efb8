"""Builds networks, optimizers, schedules and batches from options."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from datasets.augment import Augmentation
from datasets.captions import Captions
from datasets.image import View
from datasets.image_text import Batches, Guide, ImageText
from datasets.mask import Masks, check_directions
from datasets.pixels import ImageStore, Pixels, ResidentPixels
from datasets.record import Record
from datasets.split import fewer_masks
from jobs.data import store_of
from jobs.job import Job
from models.base import AnomalyModel
from models.methods import METHODS
from models.objectives import OBJECTIVES
from models.objectives.base import Learner, Targets
from options.load import loads
from options.schema import Run, Stage
from utils.checkpoint import load_weights, read_about
from utils.errors import UserError
from utils.memory import check_memory, checked_memory
from utils.optimizers import OPTIMIZERS, Parameters
from utils.ranks import Share, share
from utils.schedules import SCHEDULES
from utils.seeding import derive, seed_everything


def build_model(run: Run, name: str) -> AnomalyModel:
    """The network of a stage before its training, the same for the same seed."""
    seed_everything(derive(run.misc.seed, name, "weights"))
    stage = run.stages[name]
    with checked_memory(stage.model.name, copies=2 if stage.needs_training else 1):
        model: AnomalyModel = stage.model.build(
            METHODS, stage.image.height_width, load_weights=True
        )
    model.store = store_of(run)
    return model


def load_model(file: Path, local: Stage | None = None) -> tuple[AnomalyModel, Stage, Run]:
    """A trained network, built from its checkpoint alone.

    Args:
        file: The checkpoint.
        local: Replaces options that change no result, such as ``engine.eval_batch_size``.

    Returns:
        The network in eval mode, the stage and the experiment it was trained with.

    Raises:
        UserError: If the file is missing, damaged, or was not written by this program.
    """
    about = read_about(file)
    run = loads(about["options"], name=str(file))
    stage: Stage = getattr(run, about["stage"])
    stage = stage if local is None else stage.with_local(local)
    model: AnomalyModel = stage.model.build(METHODS, stage.image.height_width, load_weights=False)
    load_weights(model, file)
    return model.eval(), stage, run


def build_learner(job: Job, targets: Targets | None) -> Learner:
    """The network of a stage with its objective."""
    model = build_model(job.run, job.name)
    seed_everything(job.seed("objective"))
    assert job.stage.objective is not None  # checked by the schema
    with checked_memory(job.stage.objective.name, copies=2):
        objective = job.stage.objective.build(OBJECTIVES, model.feature_dim, targets)
    return Learner(model, objective)


def build_optimizer(stage: Stage, learner: Learner) -> torch.optim.Optimizer:
    """The optimizer of a stage: encoders in one group, everything else in another."""
    encoders: dict[float, list[nn.Parameter]] = defaultdict(list)
    for encoder in learner.model.encoders():
        for factor, parameters in encoder.lr_factors():
            encoders[factor] += parameters
    inside = {id(p) for encoder in learner.model.encoders() for p in encoder.parameters()}
    others = [p for p in learner.parameters() if id(p) not in inside]
    assert stage.optimizer is not None  # checked by the schema
    optimizer: torch.optim.Optimizer = stage.optimizer.build(
        OPTIMIZERS, Parameters(encoders, others)
    )
    return optimizer


def build_schedule(stage: Stage) -> Callable[[float], float]:
    """The learning-rate schedule of a stage."""
    assert stage.schedule is not None  # checked by the schema
    schedule: Callable[[float], float] = stage.schedule.build(SCHEDULES, stage.engine.epochs)
    return schedule


def check_training(stage: Stage) -> None:
    """Builds optimizer and schedule without a network, to report wrong options early.

    Raises:
        UserError: If an option of optimizer or schedule is wrong.
    """
    assert stage.optimizer is not None  # checked by the schema
    stage.optimizer.build(OPTIMIZERS, Parameters({1.0: [nn.Parameter(torch.zeros(1))]}, []))
    build_schedule(stage)


def check_batch(job: Job) -> None:
    """Raises UserError if a batch of training images does not fit into memory."""
    _check_batch(_training_view(job.stage), min(job.stage.engine.batch_size, len(job.data.train)))


def _training_view(stage: Stage) -> View:
    """The view of a training image: larger if it is cropped, so that the smallest crop is sharp."""
    scale = stage.augment.crop**-0.5
    height, width = stage.image.height_width
    return stage.image.view.at((round(height * scale), round(width * scale)))


def training_batches(job: Job, live_teacher: Stage | None = None) -> Batches:
    """The training images of a stage in batches.

    Args:
        job: The stage.
        live_teacher: Options of a teacher that runs at every step: the batches then have its
            inputs, too.
    """
    stage, data, seed = job.stage, job.data, job.seed("data")
    view = _training_view(stage)
    resident = job.machine.device if stage.engine.pixels_on_device else None

    def pixels(view: View) -> Pixels:
        return data.store.pixels(data.train, view, resident=resident)

    images = ImageText(
        pixels(view),
        data.train,
        augmentation=Augmentation(stage.augment, stage.image.height_width, seed),
        captions=job.captions if METHODS[stage.model.name].reads_text else None,
        guide=Guide(pixels(live_teacher.image.view), job.captions) if live_teacher else None,
        masks=_masks(job, view) if needs_masks(stage) else None,
    )
    return Batches(
        images,
        stage.engine.batch_size,
        sampler=stage.engine.sampler,
        num_workers=_num_workers(images, stage),
        device=job.machine.device,
        seed=seed,
        part=share(),
    )


def needs_masks(stage: Stage) -> bool:
    """Whether the stage's objective needs the masks of its training images."""
    objective = stage.objective
    return objective is not None and OBJECTIVES[objective.name].needs_masks(objective.options)


def _masks(job: Job, view: View) -> Masks:
    data, objective, records = job.data, job.stage.objective, job.data.train
    assert objective is not None  # it needs masks
    missing = [record.path for record in records if record.label and not record.mask]
    if missing and OBJECTIVES[objective.name].needs_all_masks:
        raise UserError(
            f"{data.root}: {len(missing)} anomalous images have no mask, the first is "
            f"{missing[0]}; this network learns from masks: leave these images out, or use another "
            "data set"
        )
    if not any(record.mask for record in records if record.label):
        raise UserError(
            f"{data.root}: no anomalous training image has a mask; write "
            f"{job.name}.objective.mask_weight=0, or use another data set"
        )
    records = fewer_masks(records, objective.options.get("mask_fraction", 1), job.run.misc.seed)
    check_directions(data.root, records)
    return Masks(data.root, records, view, job.stage.image.mask_resize)


def evaluation_batches(
    store: ImageStore,
    stage: Stage,
    records: Sequence[Record],
    device: torch.device,
    *,
    captions: Captions | None = None,
    with_masks: bool = False,
    part: Share | None = None,
) -> Batches:
    """Images to score, each once, in order.

    Args:
        store: Their pixels.
        stage: The stage whose network scores them.
        records: The images.
        device: The device to which the batches will be moved.
        captions: The text for a network that reads text; by default the name of the object, which
            does not tell the label.
        with_masks: Whether the batches have masks.
        part: The share of this process; by default an equal one for each process.
    """
    is_reader = METHODS[stage.model.name].reads_text
    _check_batch(stage.image.view, min(stage.engine.eval_batch_size, len(records)))
    resident = device if stage.engine.pixels_on_device else None
    masks = None
    if with_masks:
        check_directions(store.root, records)
        masks = Masks(store.root, records, stage.image.view, stage.image.mask_resize)
    images = ImageText(
        store.pixels(records, stage.image.view, resident=resident),
        records,
        captions=(captions or Captions("object", 0.0, 0)) if is_reader else None,
        masks=masks,
    )
    return Batches(
        images,
        stage.engine.eval_batch_size,
        sampler=None,
        num_workers=_num_workers(images, stage),
        device=device,
        part=part or share(),
    )


def _check_batch(view: View, count: int) -> None:
    """Raises UserError if a batch of ``count`` images does not fit into memory."""
    height, width = view.size
    check_memory(
        count * 3 * height * width * 4,  # float32
        f"{count} images of {height} x {width} pixels",
    )


def _num_workers(images: ImageText, stage: Stage) -> int | None:
    return 0 if isinstance(images.pixels, ResidentPixels) else stage.engine.num_workers
