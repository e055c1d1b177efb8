"""What a teacher says about the training images of its student, asked once for all epochs."""

import hashlib

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from datasets.cache import content_key
from datasets.image_text import Batches
from models.objectives.base import LiveTeacher, TableTargets
from options.assemble import evaluation_batches, stage_captions
from options.images import Data
from options.schema import Run, Stage
from utils.checkpoint import write_bytes
from utils.device import Machine
from utils.ranks import gathered, is_main, local_rank


def ask_once(
    run: Run,
    name: str,
    stage: Stage,
    data: Data,
    machine: Machine,
    teacher: LiveTeacher,
    teacher_stage: Stage,
    teacher_hash: str,
) -> TableTargets:
    """Logits and features of every training image, as the teacher sees and reads them.

    They are kept beside the decoded images, under a name made of everything they depend on: the
    teacher's weights, the pictures, its view of them, the captions, and device and precision.

    Args:
        run: The experiment.
        name: The stage that is guided.
        stage: Its options.
        data: The images.
        machine: Where to compute.
        teacher: Who is asked.
        teacher_stage: The options it was trained with.
        teacher_hash: SHA-256 of its checkpoint.
    """
    captions = stage_captions(run, name, stage)
    batches = evaluation_batches(
        run, teacher_stage, data.train, data.splits["train"], machine.device, captions
    )
    paths = [record.path for record in data.train]
    view = teacher_stage.image.view
    said = [captions(record, 0) for record in data.train]
    parts = [teacher_hash, str(machine), content_key(data.root, paths, view), *paths, *said]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    file = run.dataset.cache / f"{key}.targets" if run.dataset.cache else None
    if file is not None and all(gathered(file.is_file())):
        answers = load_file(file)
    else:
        answers = _ask(teacher, batches, machine)
        if file is not None and local_rank() == 0:  # machines may have a cache each
            write_bytes(save(answers), file)
    device = machine.device
    return TableTargets(paths, answers["logits"].to(device), answers["features"].to(device))


def _ask(teacher: LiveTeacher, batches: Batches, machine: Machine) -> dict[str, Tensor]:
    """Logits ``(N, 2)`` and features ``(N, D)`` of all images, in order, on the CPU."""
    bar = tqdm(batches, desc="asking the teacher", unit="batch", leave=False, disable=not is_main())
    with machine.autocast():
        looks = (teacher.look(batch.to(machine.device)) for batch in bar)
        # Without the attention, which is many times as large.
        outputs = [(look.logits.float().cpu(), look.features.float().cpu()) for look in looks]
    mine = {
        key: torch.cat(values)
        for key, values in zip(("logits", "features"), zip(*outputs, strict=True), strict=True)
    }
    parts = gathered(mine)
    answers = {
        key: torch.empty(sum(len(part[key]) for part in parts), *value.shape[1:])
        for key, value in mine.items()
    }
    for rank, part in enumerate(parts):
        for key, value in part.items():
            answers[key][rank :: len(parts)] = value
    return answers
