"""The scores of images, in validation and in the test."""

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.image_text import Batches
from models.base import AnomalyModel
from models.student import Student
from utils.batch import Batch
from utils.device import Machine
from utils.errors import NothingToShowError
from utils.evaluation import score_images
from utils.pixel_evaluation import PixelFigures
from utils.ranks import is_main, put_together


def score_all(
    model: AnomalyModel, batches: Batches, machine: Machine, pixels: PixelFigures | None = None
) -> pd.DataFrame:
    """One row per image, as :func:`utils.evaluation.score_images`; processes share the images.

    Args:
        model: The network.
        batches: The images; with masks, if ``pixels`` is given.
        machine: Device and precision.
        pixels: Gets the anomaly maps of this process's images; ``None``: no map is computed.
    """
    model.eval()

    def score(batch: Batch) -> Tensor:
        with machine.autocast():
            if pixels is None:
                return model.score(batch)
            scores, maps = model.score_and_map(batch)
        pixels.add(maps, batch)
        return scores

    bar = tqdm(batches, desc="scoring", unit="batch", leave=False, disable=not is_main())
    return put_together(score_images(score, bar, machine.device))


def maps_of(model: AnomalyModel, batch: Batch, machine: Machine) -> Tensor:
    """The maps of :func:`scores_and_maps`."""
    return scores_and_maps(model, batch, machine)[1]


def scores_and_maps(model: AnomalyModel, batch: Batch, machine: Machine) -> tuple[Tensor, Tensor]:
    """Scores ``(B,)`` and where the anomaly is, ``(B, H, W)``, at least 0; on the CPU.

    Grad-CAM of a student is in logits; the maps of a method that has some of its own are in
    ``[0, 1]``.

    Raises:
        NothingToShowError: If the network has none.
    """
    batch = batch.to(machine.device)
    if isinstance(model, Student):
        from models.gradcam import heat_maps  # here: it takes seconds, and a training needs none

        scores, maps = heat_maps(model, batch)
        return scores.cpu(), maps.cpu()
    if not model.has_map:
        raise NothingToShowError(f"{type(model).__name__} has no map")
    with torch.inference_mode(), machine.autocast():
        scores, maps = model.score_and_map(batch)
    return scores.float().cpu(), maps.float().cpu()
