"""From options to objects: the only place that reads them and builds something."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from datasets import DATASETS
from datasets.augment import Augmentation
from datasets.cache import open_cache
from datasets.captions import Captions
from datasets.image import View
from datasets.image_text import Batches, Guide, ImageText
from datasets.mask import Masks
from datasets.pixels import DecodedPixels, Pixels, ResidentPixels
from datasets.record import Record, Splits, data_hash, hold_out
from datasets.split import carve_validation, group_copies
from models.base import AnomalyModel
from models.methods import METHODS
from models.objectives import OBJECTIVES
from models.objectives.base import Learner, Targets
from options.load import loads
from options.schema import Dataset, Run, Source, Stage
from utils.checkpoint import load_weights, read_about
from utils.errors import UserError
from utils.optimizers import OPTIMIZERS
from utils.ranks import Share, is_main, share
from utils.schedules import SCHEDULES
from utils.seeding import derive, seed_everything


@dataclass(frozen=True)
class Data:
    """The images of an experiment.

    Attributes:
        root: Folder the records' paths are relative to.
        train: Images to learn from.
        val: Images to choose a checkpoint on; part of the data set's training images.
        splits: The data set's own splits; ``test`` is for ``test.py``.
        hash: Names this list.
    """

    root: Path
    train: Sequence[Record]
    val: Sequence[Record]
    splits: Splits
    hash: str


def read_splits(options: Source) -> Splits:
    """A data set's own splits, less the objects that are held out of the training.

    Raises:
        UserError: As the reader and :func:`datasets.record.hold_out`, or if an object has a name
            that tables have a use for.
    """
    splits: Splits = options.reader.build(DATASETS, options.dir)
    if any(record.object == "mean" for records in splits.values() for record in records):
        raise UserError(
            f"{options.dir}: an object is called 'mean', as the last row of every table; rename it"
        )
    if isinstance(options, Dataset) and options.hold_out:
        return hold_out(splits, options.hold_out, "dataset.hold_out")
    return splits


def read_tested(options: Source) -> Splits:
    """As :func:`read_splits`, where something is to be tested.

    Raises:
        UserError: If there are no test images, too.
    """
    splits = read_splits(options)
    if not splits["test"]:
        raise UserError(
            f"{options.dir}: no test images; see dataset.split, dataset.objects and "
            "dataset.hold_out"
        )
    return splits


def whole_paths(root: Path, paths: Iterable[str]) -> set[Path]:
    """The files that ``paths`` in ``root`` mean, whatever they are called from elsewhere."""
    return {(root / path).resolve() for path in paths}


def read_data(run: Run, name: str = "student", splits: Splits | None = None) -> Data:
    """What stage ``name`` learns from, with validation images carved out.

    A baseline learns from the test images of ``dataset.auxiliary``, which have masks, and from
    nothing else; they are not the test images of the run.

    Args:
        run: The experiment.
        name: The stage.
        splits: What :func:`read_splits` said of its data set, where that is known already.

    Raises:
        UserError: As the reader and :func:`datasets.split.carve_validation`.
    """
    options: Source = run.dataset
    splits = splits or read_splits(options)
    if name == "baseline" and run.dataset.auxiliary is not None:
        tested = whole_paths(options.dir, (record.path for record in splits["test"]))
        options = run.dataset.auxiliary
        splits = {"train": _read_auxiliary(options)["test"], "test": []}
        if tested & whole_paths(options.dir, (record.path for record in splits["train"])):
            raise UserError(
                "dataset.auxiliary: holds images that are to be tested; name another data set, or "
                "other objects of it"
            )
    # One process keeps what it reads: not every network disk locks the file for several.
    cache = run.dataset.cache if is_main() else None
    grouped = group_copies(options.dir, splits["train"], cache=cache)
    train, val = carve_validation(grouped, run.dataset.val_fraction, run.misc.seed)
    return Data(options.dir, train, val, splits, data_hash(splits))


def _read_auxiliary(options: Source) -> Splits:
    """As :func:`read_splits`; what there is to mend is an option of ``dataset.auxiliary``."""
    try:
        return read_splits(options)
    except UserError as error:
        said = re.sub(r"(?<![\w/.])dataset\.(?=\w)", "dataset.auxiliary.", str(error))
        raise UserError(said) from error


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
