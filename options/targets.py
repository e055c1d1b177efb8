"""What a teacher says about the training images of its student, asked once for all epochs."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from tqdm import tqdm

from datasets.cache import content_key
from datasets.image import View
from models.objectives.base import LiveTeacher, TableTargets
from options.assemble import Data, evaluation_batches, stage_captions
from options.schema import Run, Stage
from utils.checkpoint import write_bytes
from utils.device import Machine


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
    view = View(teacher_stage.image.height_width, teacher_stage.image.resize)
    said = [captions(record, 0) for record in data.train]
    parts = [teacher_hash, str(machine), content_key(data.root, paths, view), *paths, *said]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    file = run.dataset.cache / f"{key}.targets" if run.dataset.cache else None
    answers = _read(file) if file is not None else None
    if answers is None:
        bar = tqdm(batches, desc="asking the teacher", unit="batch", leave=False)
        with machine.autocast():
            outputs = [teacher.look(batch.to(machine.device)) for batch in bar]
        answers = {
            "logits": torch.cat([output.logits for output in outputs]).float(),
            "features": torch.cat([output.features for output in outputs]).float(),
        }
        if file is not None:
            write_bytes(save({k: v.cpu() for k, v in answers.items()}), file)
    device = machine.device
    return TableTargets(paths, answers["logits"].to(device), answers["features"].to(device))


def _read(file: Path) -> dict[str, torch.Tensor] | None:
    return load_file(file) if file.is_file() else None
