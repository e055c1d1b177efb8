"""From a network and images to scores: what choosing a checkpoint and testing share."""

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.captions import Captions, Policy
from datasets.image_text import Batches
from datasets.record import Record, Splits
from jobs.build import evaluation_batches
from models.base import AnomalyModel
from options.schema import Run, Stage
from utils.batch import Batch
from utils.device import Machine
from utils.errors import UserError
from utils.evaluation import score_images
from utils.pixel_evaluation import PixelFigures
from utils.ranks import WHOLE, is_main, put_together
from utils.seeding import derive, generator


def score_all(
    model: AnomalyModel, batches: Batches, machine: Machine, pixels: PixelFigures | None = None
) -> pd.DataFrame:
    """One row per image, as :func:`utils.evaluation.score_images`; shared out among processes.

    Args:
        model: The network.
        batches: The images; with masks, if ``pixels`` is given.
        machine: Where to compute.
        pixels: Gets the anomaly maps of this process's images; ``None``: no map is made.
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


def score_test(
    model: AnomalyModel,
    run: Run,
    stage: Stage,
    splits: Splits,
    machine: Machine,
    *,
    policy: Policy = "object",
    pixels: PixelFigures | None = None,
) -> pd.DataFrame:
    """Scores of all test images, by a network that is ready but for its references.

    Args:
        model: The network.
        run: Says where the images are, and with its seed which references are drawn.
        stage: Of the network.
        splits: The images; references come from ``train``.
        machine: Where to compute.
        policy: What a network that reads text is told.
        pixels: Gets the anomaly maps of this process's images; ``None``: no map is made.

    Raises:
        UserError: As :func:`show_references`, or if a picture cannot be read.
    """
    machine.place(model)
    if model.num_references:
        show_references(model, run, stage, splits, machine)
    records, captions = splits["test"], Captions(policy, 0.0, 0)
    masks = pixels is not None
    batches = evaluation_batches(
        run, stage, records, records, machine.device, captions, with_masks=masks
    )
    return score_all(model, batches, machine, pixels)


@torch.inference_mode()
def show_references(
    model: AnomalyModel, run: Run, stage: Stage, splits: Splits, machine: Machine
) -> None:
    """Shows ``model`` its normal references: of each tested object as many, drawn by the seed.

    Raises:
        UserError: If an object has too few normal training images.
    """
    model.eval()
    good: dict[str, list[Record]] = {}
    for record in splits["train"]:
        if not record.label:
            good.setdefault(record.object, []).append(record)
    chosen: list[Record] = []
    for name in dict.fromkeys(record.object for record in splits["test"]):
        records = good.get(name, [])
        if len(records) < model.num_references:
            raise UserError(
                f"{stage.model.name}: shots is {model.num_references}, but {name} has "
                f"{len(records)} normal training images"
            )
        random = generator(derive(run.misc.seed, "references", name))
        order = torch.randperm(len(records), generator=random)
        chosen += [records[i] for i in order[: model.num_references].tolist()]
    # Every process compares its images with all references, not with a share of them.
    for batch in evaluation_batches(run, stage, chosen, chosen, machine.device, part=WHOLE):
        with machine.autocast():
            model.remember(batch.to(machine.device))
