"""The teacher that guides a student: its checkpoint and its outputs."""

from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm

from datasets.image_text import Batches
from datasets.pixels import content_parts
from datasets.record import Splits, data_hash
from jobs.build import evaluation_batches
from jobs.job import Job
from jobs.run_folder import StageFolder
from models.objectives import OBJECTIVES
from models.objectives.base import LiveTeacher, TableTargets
from options.schema import Run, Stage
from utils.checkpoint import read_about
from utils.console import say
from utils.device import Machine
from utils.errors import UserError
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
    """The teacher's logits and features of every training image.

    They are kept in the cache. Their name depends on the teacher's weights, the pictures, its view
    of them, the captions, device and precision.

    Args:
        job: The student.
        teacher: Its teacher.
        teacher_stage: The options that the teacher was trained with.
        teacher_hash: SHA-256 of the teacher's checkpoint.
    """
    data, machine, captions = job.data, job.machine, job.captions
    batches = evaluation_batches(
        data.store, teacher_stage, data.train, machine.device, captions=captions
    )
    digests = data.store.digests(data.train)
    texts = [captions(record, 0) for record in data.train]
    pictures = content_parts(digests, teacher_stage.image.view)
    parts = [teacher_hash, str(machine), *pictures, *texts]
    content = data.store.store.load(parts, "targets")
    if all(gathered(content is not None)) and content is not None:
        outputs = load(content)
    else:
        outputs = _outputs(teacher, batches, machine)
        if local_rank() == 0:  # each machine may have a cache of its own
            about = f"outputs of a teacher for {len(texts)} images of {data.root}"
            data.store.store.load_or_make(parts, "targets", lambda: save(outputs), about)
    device = machine.device
    paths = [record.path for record in data.train]
    return TableTargets(paths, outputs["logits"].to(device), outputs["features"].to(device))


def _outputs(teacher: LiveTeacher, batches: Batches, machine: Machine) -> dict[str, Tensor]:
    """Logits ``(N, 2)`` and features ``(N, D)`` of all images, in order, on the CPU."""
    bar = tqdm(
        batches, desc="running the teacher", unit="batch", leave=False, disable=not is_main()
    )
    with machine.autocast():
        looks = (teacher.look(batch.to(machine.device)) for batch in bar)
        # Without the attention, which is many times as large.
        batchwise = [(look.logits.float().cpu(), look.features.float().cpu()) for look in looks]
    own = {
        key: torch.cat(values)
        for key, values in zip(("logits", "features"), zip(*batchwise, strict=True), strict=True)
    }
    parts = gathered(own)
    outputs = {
        key: torch.empty(sum(len(part[key]) for part in parts), *value.shape[1:])
        for key, value in own.items()
    }
    for rank, part in enumerate(parts):
        for key, value in part.items():
            outputs[key][rank :: len(parts)] = value
    return outputs
