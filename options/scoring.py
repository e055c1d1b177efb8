"""From a network and images to scores: what choosing a checkpoint and testing share."""

import pandas as pd
from torch import Tensor
from tqdm import tqdm

from datasets.image_text import Batches
from models.base import AnomalyModel
from utils.batch import Batch
from utils.device import Machine
from utils.evaluation import score_images
from utils.ranks import is_main, put_together


def score_all(model: AnomalyModel, batches: Batches, machine: Machine) -> pd.DataFrame:
    """One row per image, as :func:`utils.evaluation.score_images`; shared out among processes."""
    model.eval()

    def score(batch: Batch) -> Tensor:
        with machine.autocast():
            return model.score(batch)

    bar = tqdm(batches, desc="scoring", unit="batch", leave=False, disable=not is_main())
    return put_together(score_images(score, bar, machine.device))
