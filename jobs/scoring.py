"""The scores of images, in validation and in the test."""

import pandas as pd
from torch import Tensor
from tqdm import tqdm

from datasets.image_text import Batches
from models.base import AnomalyModel
from utils.batch import Batch
from utils.device import Machine
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
