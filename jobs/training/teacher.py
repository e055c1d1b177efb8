"""The teacher that guides a student: its checkpoint and its outputs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from datasets.augment import Augment
from datasets.image_text import Batches
from datasets.pixels import content_parts
from datasets.record import Splits, data_hash
from jobs.build import evaluation_batches
from jobs.job import Job
from jobs.run_folder import StageFolder
from jobs.training.tokens import ask_encoders
from models.base import AnomalyModel, Output
from models.objectives import OBJECTIVES
from models.objectives.base import LiveTeacher, TableTargets
from models.places import grid_of
from models.student import Student
from models.teacher import Teacher
from models.word_maps import defect_maps
from options.schema import Run, Stage
from utils.batch import Batch
from utils.checkpoint import read_about
from utils.console import say
from utils.device import Machine
from utils.errors import NothingToShowError, UserError
from utils.ranks import gathered, is_main, local_rank


def guide_file(run: Run, stage: Stage, splits: Splits) -> Path | None:
    """The checkpoint of the teacher that guides ``stage``; ``None`` if its objective needs none.

    Raises:
        UserError: If it is missing, or if a ready one was trained on images or objects that are
            tested here.
    """
    objective = stage.objective
    if objective is None or not OBJECTIVES[objective.name].needs_teacher or run.teacher is None:
        return None
    path = run.teacher if isinstance(run.teacher, Path) else run.exp.dir / "teacher"
    folder = StageFolder(path, "teacher")
    if not folder.best.is_file():
        raise UserError(f"teacher: {folder.best} is missing; name the folder of a trained teacher")
    if isinstance(run.teacher, Path) and run.exp.resume != "any_options":
        folder.check_unseen(run, splits)
        about = read_about(folder.best)
        if not folder.lists.is_file() and about.get("data") != data_hash(splits):
            say(
                f"teacher: {folder.lists} is missing, and the teacher was trained on another list "
                "of images than this one: perhaps on images that are tested here"
            )
    return folder.best


def compute_once(
    job: Job, teacher: LiveTeacher, teacher_stage: Stage, teacher_hash: str
) -> TableTargets:
    """The teacher's outputs for every training image, as far as the student's objective needs them.

    They are kept in the cache. Their name depends on the teacher's weights, the pictures, its view
    of them, the captions, device and precision.

    Args:
        job: The student.
        teacher: Its teacher.
        teacher_stage: The options that the teacher was trained with.
        teacher_hash: SHA-256 of the teacher's checkpoint.

    Raises:
        UserError: If the teacher, or the captions, lack what the objective asks for.
    """
    data, machine, captions, device = job.data, job.machine, job.captions, job.machine.device
    assert job.stage.objective is not None  # it has a teacher
    asked = job.stage.objective.options
    names = {record.path: captions.names(record) for record in data.train}
    maps = None
    if asked.get("attention_weight"):
        if teacher_stage.image.resize != job.stage.image.resize:
            raise UserError(
                f"{job.name}.image.resize: the teacher's is {teacher_stage.image.resize}, so that "
                "its attention is of other parts of the picture; write the same"
            )
        maps = _Maps(teacher, teacher_stage, names)
    digests = data.store.digests(data.train)
    texts = [captions(record, 0) for record in data.train]
    pictures = content_parts(digests, teacher_stage.image.view)
    parts = [teacher_hash, str(machine), *pictures, *texts]
    parts += ["maps", *map(str, names.values())] if maps else []
    content = data.store.store.load(parts, "targets")
    if all(gathered(content is not None)) and content is not None:
        outputs = load(content)
    else:
        view = replace(teacher_stage, augment=Augment())  # it sees the images as they are
        store = ask_encoders(teacher.model, view, data.store, data.splits["train"], machine)
        batches = evaluation_batches(store, teacher_stage, data.train, device, captions=captions)
        try:
            outputs = _outputs(teacher, batches, machine, maps)
        except NothingToShowError as error:
            raise UserError(f"{job.name}.objective.attention_weight: {error}") from error
        if local_rank() == 0:  # each machine may have a cache of its own
            about = f"outputs of a teacher for {len(texts)} images of {data.root}"
            data.store.store.load_or_make(parts, "targets", lambda: save(outputs), about)
    if maps and not outputs["places"].isfinite().any():
        raise UserError(
            f"{job.name}.objective.attention_weight: the captions of the training images name no "
            f"defect; set it to 0, or see captions (policy {captions.policy})"
        )
    if asked.get("words_weight"):
        outputs["kinds"] = _kinds(job, list(names.values()))
    paths = [record.path for record in data.train]
    return TableTargets(paths, **{key: value.to(device) for key, value in outputs.items()})


def _kinds(job: Job, names: Sequence[Sequence[str]]) -> Tensor:
    """1 where an image has a kind of defect, else 0, ``(N, K)``; NaN where nobody says which."""
    kinds = sorted({name for of_image in names for name in of_image})
    where, classif = f"{job.name}.objective.words_weight", job.stage.model.options["classif"]
    if not kinds:
        raise UserError(
            f"{where}: the captions of the training images name no defect; set it to 0, or see "
            f"captions (policy {job.captions.policy})"
        )
    if len(kinds) > classif.options["detectors"]:
        raise UserError(
            f"{where}: the captions name {len(kinds)} kinds of defect ({', '.join(kinds)[:200]}); "
            f"write {classif.path}.detectors={len(kinds)}, or more"
        )
    rows = [
        [torch.nan if record.label and not of_image else float(kind in of_image) for kind in kinds]
        for record, of_image in zip(job.data.train, names, strict=True)
    ]
    return torch.tensor(rows)


class _Maps:
    """Where the teacher looks: its attention to the names of defects, or its own map.

    Args:
        teacher: The teacher.
        stage: Its options.
        names: By path, the names of defects in the caption of each image.
    """

    def __init__(self, teacher: LiveTeacher, stage: Stage, names: dict[str, list[str]]) -> None:
        self.model: AnomalyModel = teacher.model
        self.names = names
        if isinstance(self.model, Teacher):
            self.grid = grid_of(self.model.img_enc, stage.image.height_width)

    def __call__(self, output: Output, batch: Batch) -> Tensor:
        """``(B, h, w)``, at least 0; NaN where there is none."""
        if isinstance(self.model, Teacher) and batch.caption is not None:
            names = [self.names[path] for path in batch.path]
            return defect_maps(self.model, output, batch.caption, names).unflatten(1, self.grid)
        if isinstance(self.model, Student) and output.places is not None:
            return F.softplus(output.places.float())
        raise NothingToShowError("the teacher has no map, and reads no words")


def _outputs(
    teacher: LiveTeacher, batches: Batches, machine: Machine, maps: _Maps | None
) -> dict[str, Tensor]:
    """Logits ``(N, 2)``, features ``(N, D)`` and maps of all images, in order, on the CPU."""
    bar = tqdm(
        batches, desc="running the teacher", unit="batch", leave=False, disable=not is_main()
    )
    rows: dict[str, list[Tensor]] = {}
    with machine.autocast():
        for batch in bar:
            look = teacher.look(batch.to(machine.device))
            # Without the whole attention, which is many times as large.
            of_batch = {"logits": look.logits, "features": look.features}
            if maps is not None:
                of_batch["places"] = maps(look, batch)
            for key, value in of_batch.items():
                rows.setdefault(key, []).append(value.float().cpu())
    own = {key: torch.cat(values) for key, values in rows.items()}
    parts = gathered(own)
    outputs = {
        key: torch.empty(sum(len(part[key]) for part in parts), *value.shape[1:])
        for key, value in own.items()
    }
    for rank, part in enumerate(parts):
        for key, value in part.items():
            outputs[key][rank :: len(parts)] = value
    return outputs
