"""The training of a network that learns from normal images alone, in one pass."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from tqdm import tqdm

from jobs.build import evaluation_batches
from jobs.job import Job
from models.base import AnomalyModel
from utils.batch import Batch
from utils.checkpoint import save_weights
from utils.console import say
from utils.ranks import WHOLE
from utils.runlog import Row, RunLog


def fit_once(job: Job, model: AnomalyModel, about: Mapping[str, Any]) -> None:
    """Shows the normal training images to a network, and saves it as a training of one epoch does.

    Nothing is saved before the end: a pass that was cut off is made again.

    Args:
        job: The stage.
        model: The network, on its device.
        about: Metadata that are stored with the weights.

    Raises:
        UserError: As :meth:`models.base.AnomalyModel.fit`.
    """
    normal = [record for record in job.data.train if not record.label]
    if left_out := len(job.data.train) - len(normal):
        say(
            f"{job.name}: {left_out} anomalous training images are left out: only normal ones count"
        )
    batches = evaluation_batches(job.data.store, job.stage, normal, job.machine.device, part=WHOLE)

    def shown() -> Iterator[Batch]:
        for batch in tqdm(batches, desc=f"{job.name}: normal images", unit="batch", leave=False):
            yield batch.to(job.machine.device)

    started = time.perf_counter()
    with job.machine.autocast():
        model.fit(shown(), num_images=len(normal), seed=job.seed("fit"))
    seconds = time.perf_counter() - started
    history: list[Row] = []
    log = RunLog(job.folder.path, history)
    history.append({"epoch": 1, "seconds": seconds, "images_per_second": len(normal) / seconds})
    save_weights(model, job.folder.best, {**about, "epoch": 1})
    log.update()
    log.close()
    job.folder.save_state({"history": history})
