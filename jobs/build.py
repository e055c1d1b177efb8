"""From options to objects: the only place that reads them and builds something."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from datasets.augment import Augmentation
from datasets.cache import open_cache
from datasets.captions import Captions
from datasets.image import View
from datasets.image_text import Batches, Guide, ImageText
from datasets.mask import Masks
from datasets.pixels import DecodedPixels, Pixels, ResidentPixels
from datasets.record import Record
from jobs.data import Data
from models.base import AnomalyModel
from models.methods import METHODS
from models.objectives import OBJECTIVES
from models.objectives.base import Learner, Targets
from options.load import loads
from options.schema import Run, Stage
from utils.checkpoint import load_weights, read_about
from utils.errors import UserError
from utils.optimizers import OPTIMIZERS
from utils.ranks import Share, share
from utils.schedules import SCHEDULES
from utils.seeding import derive, seed_everything


def build_model(run: Run, name: str, stage: Stage) -> AnomalyModel:
    """The network of a stage before its training, the same for the same seed."""
    seed_everything(derive(run.misc.seed, name, "weights"))
    model: AnomalyModel = stage.model.build(METHODS, stage.image.height_width, True)
    return model


def load_model(file: Path, local: Stage | None = None) -> tuple[AnomalyModel, Stage, Run]:
    """A trained network, rebuilt from nothing but its checkpoint.

    Args:
        file: The checkpoint.
        local: Has the last word on what changes no result, such as ``engine.eval_batch_size``.

    Returns:
        The network in eval mode, the stage and the experiment it was trained with.

    Raises:
        UserError: If the file is missing, damaged, or was not written by this program.
    """
    about = read_about(file)
    run = loads(about["options"], name=str(file))
    stage: Stage = getattr(run, about["stage"])
    stage = stage if local is None else stage.with_local(local)
    model: AnomalyModel = stage.model.build(METHODS, stage.image.height_width, False)
    load_weights(model, file)
    return model.eval(), stage, run


def build_learner(run: Run, name: str, stage: Stage, targets: Targets | None) -> Learner:
    """The network of a stage with its objective."""
    model = build_model(run, name, stage)
    seed_everything(derive(run.misc.seed, name, "objective"))
    assert stage.objective is not None  # the schema sees to it
    objective = stage.objective.build(OBJECTIVES, model.feature_dim, targets)
    return Learner(model, objective)


def build_optimizer(stage: Stage, learner: Learner) -> torch.optim.Optimizer:
    """The optimiser of a stage: encoders in one group, everything else in another."""
    encoders = [p for encoder in learner.model.encoders() for p in encoder.parameters()]
    inside = {id(p) for p in encoders}
    others = [p for p in learner.parameters() if id(p) not in inside]
    assert stage.optimizer is not None
    made: torch.optim.Optimizer = stage.optimizer.build(OPTIMIZERS, encoders, others)
    return made


def build_schedule(stage: Stage) -> Callable[[float], float]:
    """The learning-rate schedule of a stage."""
    assert stage.schedule is not None
    made: Callable[[float], float] = stage.schedule.build(SCHEDULES, stage.engine.epochs)
    return made


def check_training(stage: Stage) -> None:
    """Builds what needs no network, to see that it can be built.

    Raises:
        UserError: If an option of optimiser or schedule is wrong.
    """
    assert stage.optimizer is not None
    stage.optimizer.build(OPTIMIZERS, [nn.Parameter(torch.zeros(1))], [])
    build_schedule(stage)


def training_batches(
    run: Run, name: str, stage: Stage, data: Data, device: torch.device, teacher: Stage | None
) -> Batches:
    """What a stage learns from; with what its teacher sees and reads, where one watches live."""
    seed = derive(run.misc.seed, name, "data")
    captions = stage_captions(run, name, stage)
    is_reader = METHODS[stage.model.name].reads_text
    size, crop = stage.image.height_width, stage.augment.crop
    # Crops are cut out of a larger picture, so that the smallest one is still sharp.
    scale = crop**-0.5
    view = View((round(size[0] * scale), round(size[1] * scale)), stage.image.resize)
    images = ImageText(
        _pixels(run, data.root, stage, data.train, data.splits["train"], view, device),
        data.train,
        augmentation=Augmentation(stage.augment, size),
        captions=captions if is_reader else None,
        guide=Guide(
            _pixels(
                run, data.root, stage, data.train, data.splits["train"], teacher.image.view, device
            ),
            captions,
        )
        if teacher
        else None,
        masks=_masks(data, view) if needs_masks(stage) else None,
        mosaic=stage.augment.mosaic,
        seed=seed,
    )
    engine = stage.engine
    return _batches(images, stage, engine.batch_size, engine.sampler, device, seed, share())


def needs_masks(stage: Stage) -> bool:
    """Whether the stage's objective wants to know where the anomalies are."""
    return stage.objective is not None and OBJECTIVES[stage.objective.name].needs_masks


def _masks(data: Data, view: View) -> Masks:
    missing = [record.path for record in data.train if record.label and not record.mask]
    if missing:
        raise UserError(
            f"{data.root}: {len(missing)} anomalous images have no mask, the first is "
            f"{missing[0]}; what is trained here learns from masks: leave them out, or take "
            "another data set"
        )
    return Masks(data.root, data.train, view)


def stage_captions(run: Run, name: str, stage: Stage) -> Captions:
    """What a teacher reads about the training images of a stage."""
    seed = derive(run.misc.seed, name, "data")
    return Captions(stage.captions.policy, stage.captions.dropout, seed)


def evaluation_batches(
    run: Run,
    stage: Stage,
    records: Sequence[Record],
    of: Sequence[Record],
    device: torch.device,
    captions: Captions | None = None,
    *,
    with_masks: bool = False,
    root: Path | None = None,
    part: Share | None = None,
) -> Batches:
    """Images to score, each once, in order.

    Args:
        run: Says where the images and their cache are.
        stage: Whose network scores them.
        records: The images.
        of: The split they are taken from, which is decoded as a whole.
        device: Where the batches go.
        captions: What a network that reads text is told: by default the object's name alone, which
            says nothing about the label. A network that reads none is told nothing.
        with_masks: Whether the batches hold masks.
        root: Folder of the images, where it is not the data set's.
        part: Which share of them is this process's; by default its own among all processes.
    """
    root = root or run.dataset.dir
    is_reader = METHODS[stage.model.name].reads_text
    images = ImageText(
        _pixels(run, root, stage, records, of, stage.image.view, device),
        records,
        captions=(captions or Captions("object", 0.0, 0)) if is_reader else None,
        masks=Masks(root, records, stage.image.view) if with_masks else None,
    )
    return _batches(images, stage, stage.engine.eval_batch_size, None, device, 0, part or share())


def _batches(
    images: ImageText,
    stage: Stage,
    batch_size: int,
    sampler: str | None,
    device: torch.device,
    seed: int,
    part: Share,
) -> Batches:
    is_resident = isinstance(images.pixels, ResidentPixels)
    workers = 0 if is_resident else stage.engine.num_workers
    return Batches(
        images,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        device=device,
        seed=seed,
        part=part,
    )


def _pixels(
    run: Run,
    root: Path,
    stage: Stage,
    records: Sequence[Record],
    of: Sequence[Record],
    view: View,
    device: torch.device,
) -> Pixels:
    options = run.dataset
    pixels: Pixels = DecodedPixels(root, records, view)
    if options.cache is not None:
        limit = int(options.cache_gb * 1e9)
        pixels = open_cache(options.cache, root, of, view, wanted=records, limit=limit)
    if stage.engine.pixels_on_device:
        pixels = ResidentPixels.of(pixels, len(records), device)
    return pixels
