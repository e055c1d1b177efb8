"""From options to objects: the only place that reads them and builds something."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from datasets import DATASETS
from datasets.augment import Augmentation
from datasets.captions import Captions, Policy
from datasets.image import View
from datasets.image_text import Batches, Guide, ImageText
from datasets.record import Record, Splits, data_hash
from datasets.split import carve_validation
from models.base import AnomalyModel
from models.methods import METHODS
from models.objectives import OBJECTIVES
from models.objectives.base import Learner, Targets
from options.load import loads
from options.schema import Run, Stage
from utils.checkpoint import load_weights, read_about
from utils.optimizers import OPTIMIZERS
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


def read_splits(run: Run) -> Splits:
    """The data set's own splits.

    Raises:
        UserError: As the reader.
    """
    options = run.dataset
    return DATASETS[options.name](options.dir, split=options.split, objects=options.objects)


def read_data(run: Run) -> Data:
    """The splits, with validation images carved out of ``train``.

    Raises:
        UserError: As the reader and :func:`datasets.split.carve_validation`.
    """
    splits = read_splits(run)
    train, val = carve_validation(splits["train"], run.dataset.val_fraction, run.misc.seed)
    return Data(run.dataset.dir, train, val, splits, data_hash(splits))


def build_model(run: Run, name: str, stage: Stage) -> AnomalyModel:
    """The network of a stage before its training, the same for the same seed."""
    seed_everything(derive(run.misc.seed, name, "weights"))
    model: AnomalyModel = stage.model.build(METHODS, stage.image.height_width, True)
    return model


def load_model(file: Path) -> tuple[AnomalyModel, Stage, Run]:
    """A trained network, rebuilt from nothing but its checkpoint.

    Returns:
        The network in eval mode, the stage and the experiment it was trained with.

    Raises:
        UserError: If the file is missing, damaged, or was not written by this program.
    """
    about = read_about(file)
    run = loads(about["options"], name=str(file))
    stage = getattr(run, about["stage"])
    model: AnomalyModel = stage.model.build(METHODS, stage.image.height_width, False)
    load_weights(model, file)
    return model.eval(), stage, run


def build_learner(run: Run, name: str, stage: Stage, targets: Targets | None) -> Learner:
    """The network of a stage with its objective."""
    model = build_model(run, name, stage)
    seed_everything(derive(run.misc.seed, name, "objective"))
    objective = stage.objective.build(OBJECTIVES, model.feature_dim, targets)
    return Learner(model, objective)


def build_optimizer(stage: Stage, learner: Learner) -> torch.optim.Optimizer:
    """The optimiser of a stage: encoders in one group, everything else in another."""
    encoders = [p for encoder in learner.model.encoders() for p in encoder.parameters()]
    inside = {id(p) for p in encoders}
    others = [p for p in learner.parameters() if id(p) not in inside]
    made: torch.optim.Optimizer = stage.optimizer.build(OPTIMIZERS, encoders, others)
    return made


def build_schedule(stage: Stage) -> Callable[[float], float]:
    """The learning-rate schedule of a stage."""
    made: Callable[[float], float] = stage.schedule.build(SCHEDULES, stage.engine.epochs)
    return made


def training_batches(
    run: Run, name: str, stage: Stage, data: Data, device: torch.device, teacher: Stage | None
) -> Batches:
    """What a stage learns from; with what its teacher sees and reads, where there is one."""
    seed = derive(run.misc.seed, name, "data")
    captions = Captions(stage.captions.policy, stage.captions.dropout, seed)
    is_reader = METHODS[stage.model.name].reads_text
    images = ImageText(
        data.root,
        data.train,
        _view(stage),
        augmentation=Augmentation(stage.augment, stage.image.height_width),
        captions=captions if is_reader else None,
        guide=Guide(_view(teacher), captions) if teacher else None,
        seed=seed,
    )
    return Batches(
        images,
        stage.engine.batch_size,
        sampler=stage.engine.sampler,
        num_workers=stage.engine.num_workers,
        device=device,
        seed=seed,
    )


def evaluation_batches(
    stage: Stage,
    root: Path,
    records: Sequence[Record],
    device: torch.device,
    policy: Policy = "object",
) -> Batches:
    """Images to score, each once, in order.

    Args:
        stage: Whose network scores them.
        root: Folder the records' paths are relative to.
        records: The images.
        device: Where the batches go.
        policy: What a network that reads text is told: by default the object's name alone, which
            says nothing about the label. A network that reads none is told nothing.
    """
    is_reader = METHODS[stage.model.name].reads_text
    captions = Captions(policy, 0.0, 0) if is_reader else None
    return Batches(
        ImageText(root, records, _view(stage), captions=captions),
        stage.engine.eval_batch_size,
        sampler=None,
        num_workers=stage.engine.num_workers,
        device=device,
    )


def _view(stage: Stage) -> View:
    return View(stage.image.height_width, stage.image.resize)
