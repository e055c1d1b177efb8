"""A trained model, loaded from nothing but its file, that gives verdicts on pictures."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.image import View, allow_pixels
from jobs.build import build_model, load_model
from jobs.data import store_of
from jobs.exported import EXPORTED, Exported
from jobs.run_folder import StageFolder
from jobs.scoring import maps_of
from models.base import AnomalyModel, Output
from models.encoders.tower import Tower
from models.student import Student
from options.load import load
from options.schema import Image, Run
from utils.batch import Batch
from utils.checkpoint import identity, read_about, state_hash
from utils.device import Machine
from utils.errors import UserError
from utils.verdicts import Verdicts

_UNTRAINED = (".yaml", ".yml")


@dataclass(frozen=True)
class Predictor:
    """A model with everything that it takes to use it.

    Attributes:
        model: In eval mode, on the device of ``machine``.
        image: How a picture becomes its input.
        machine: Where to compute.
        verdicts: Threshold and calibration; ``None``: there are only scores.
        objects: Names of the objects that it was trained on; empty: not known.
        identity: SHA-256 of the model, 64 hex digits.
        title: What messages call it.
    """

    model: AnomalyModel
    image: Image
    machine: Machine
    verdicts: Verdicts | None
    objects: Sequence[str]
    identity: str
    title: str

    @classmethod
    def load(cls, source: Path, device: str = "auto", overrides: Sequence[str] = ()) -> "Predictor":
        """The model in a file of weights, in the folder of a run, or of an options file.

        Args:
            source: ``best.safetensors``, a folder that holds one, a file that ``export.py`` wrote,
                or the options of a baseline that needs no training.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            overrides: ``a.b=value``, for an options file.

        Raises:
            UserError: If there is no such model, or its file is damaged.
        """
        if source.suffix in _UNTRAINED:
            return cls._untrained(load(source, overrides), source, device)
        if overrides:
            raise UserError(f"{overrides[0]}: options are for an options file, not for {source}")
        if source.suffix in EXPORTED:
            return cls._exported(source)
        file = _file(source)
        model, stage, run = load_model(file)
        allow_pixels(run.dataset.max_pixels)
        about = read_about(file)
        return cls(
            _placed(model, machine := Machine.choose(device, run.misc.precision)),
            stage.image,
            machine,
            Verdicts.of(file),
            about.get("objects", []),
            identity(file),
            f"{stage.model.name} in {file}",
        )

    @classmethod
    def _untrained(cls, run: Run, source: Path, device: str) -> "Predictor":
        name, stage = next(iter(run.stages.items()))
        if stage.needs_training:
            raise UserError(
                f"{source}: {stage.model.name} has to be trained; name the folder of its run, "
                f"{run.exp.dir}, after python run.py {source}"
            )
        machine = Machine.choose(device, run.misc.precision)
        model = build_model(run, name)
        if model.num_references:
            raise UserError(
                f"{source}: {stage.model.name} needs normal references; write {name}.model.shots=0"
            )
        model.store = store_of(run)
        title = f"{stage.model.name} of {source}"
        hashed = state_hash(model)
        return cls(_placed(model, machine), stage.image, machine, None, [], hashed, title)

    @classmethod
    def _exported(cls, file: Path) -> "Predictor":
        exported = Exported.open(file)
        about = exported.about
        image = about["image"]
        (height, width), levels = image["size"], image["range"]
        verdicts = about["verdicts"] and Verdicts.from_json(about["verdicts"])
        return cls(
            _ExportedModel(exported),
            Image(
                size=(height, width),
                resize=image["resize"],
                range=(levels[0], levels[1]) if isinstance(levels, list) else levels,
            ),
            Machine.choose("cpu", "fp32"),
            verdicts,
            about["objects"],
            about["model"],
            str(file),
        )

    @cached_property
    def name(self) -> str:
        """As in ``0123456789ab.cdef``: of the model, and of its thresholds and calibration."""
        verdicts = self.verdicts and self.verdicts.to_json()
        hashed = hashlib.sha256(json.dumps(verdicts, sort_keys=True).encode()).hexdigest()
        return f"{self.identity[:12]}.{hashed[:4]}"

    @property
    def view(self) -> View:
        """How a picture becomes its input."""
        return self.image.view

    @property
    def needs_object(self) -> bool:
        """Whether the score depends on the name of the object."""
        return self.model.needs_object

    def object_of(self, path: str) -> str:
        """The object in a picture: the only one there is, or a folder of that name; else empty."""
        if len(self.objects) == 1:
            return self.objects[0]
        known = set(self.objects)
        return next((part for part in reversed(PurePath(path).parts[:-1]) if part in known), "")

    def at(self, threshold: float) -> "Predictor":
        """The same with another threshold for all objects; the calibration stays."""
        named = Verdicts.at(threshold)
        if self.verdicts is not None:
            named = replace(self.verdicts, thresholds=named.thresholds)
        return replace(self, verdicts=named)

    @torch.inference_mode()
    def scores(self, batch: Batch) -> NDArray[np.float64]:
        """A score for each picture, as ``test.py`` computes it, shape ``(B,)``."""
        with self.machine.autocast():
            scores = self.model.score(batch.to(self.machine.device))
        return np.asarray(scores.cpu().double().numpy())

    @property
    def has_map(self) -> bool:
        """Whether it can show where in a picture the anomaly is."""
        return self.model.has_map or isinstance(self.model, Student)

    @property
    def has_shares(self) -> bool:
        """Whether its maps are in ``[0, 1]``; a student's heat is in logits."""
        return not isinstance(self.model, Student)

    def maps(self, batch: Batch) -> Tensor:
        """As :func:`jobs.scoring.maps_of`."""
        return maps_of(self.model, batch, self.machine)


class _ExportedModel(AnomalyModel):
    """A network in an exported file."""

    needs_object = False

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        self.exported = exported

    def score(self, batch: Batch) -> Tensor:
        """As :class:`AnomalyModel`; computed by the runtime of the file."""
        return self.exported.score(batch)

    def forward(self, batch: Batch) -> Output:
        """Not possible: an exported file has scores only."""
        raise NotImplementedError

    def encoders(self) -> Iterable[Tower]:
        """None."""
        return ()


def _placed(model: AnomalyModel, machine: Machine) -> AnomalyModel:
    return machine.place(model.eval())


def _file(source: Path) -> Path:
    """The weights that a file or a folder of a run names.

    Raises:
        UserError: If there are none, or several.
    """
    if not source.is_dir():
        return source
    for stage in ("", "student", "baseline", "teacher"):
        if (file := StageFolder(source / stage, stage).best).is_file():
            return file
    several = sorted(source.glob("*/*/best.safetensors"))
    more = f"; name one of its models, such as {several[0]}" if several else "; train it first"
    raise UserError(f"{source}: holds no trained model (best.safetensors){more}")
