"""What a report shows besides scores: the hardest images with heat maps, and features."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from datasets.image import read_view
from datasets.record import Record
from jobs.reporting.report import Evidence, Picture, hardest
from jobs.scoring import maps_of
from jobs.session import Network, Session
from options.dump import dumps
from utils.errors import NothingToShowError
from utils.ranks import WHOLE

FINE = 320  # pixels that a picture has at least, in width
LEAST_HEAT = 0.01  # logits; the color scale ends here at the earliest
_PERPLEXITY = 30.0


def gather(session: Session, network: Network, scores: pd.DataFrame, *, tsne: bool) -> Evidence:
    """What the report of a network shows; it has been scored before."""
    record_of = {record.path: record for record in session.splits["test"]}
    rows = hardest(scores)
    records = [record_of[path] for path in scores["path"].iloc[rows]]
    return Evidence(
        _pictures(session, network, rows, records),
        network.verdicts,
        _tsne(session, network, [record_of[path] for path in scores["path"]]) if tsne else None,
        dumps(session.run),
    )


def _pictures(
    session: Session, network: Network, rows: Sequence[int], records: Sequence[Record]
) -> list[Picture]:
    image = network.stage.image
    height, width = image.height_width
    times = -(-FINE // width)
    view = image.view.at((times * height, times * width))
    photos = [
        read_view(session.run.dataset.dir / record.path, view).permute(1, 2, 0).numpy()
        for record in records
    ]
    try:
        batches = session.batches(network, records, part=WHOLE)
        heat = [
            one
            for batch in batches
            for one in maps_of(network.model, batch, session.machine).numpy()
        ]
    except NothingToShowError:
        return [Picture(*pair, None) for pair in zip(rows, photos, strict=True)]
    top = max([LEAST_HEAT, *(float(one.max()) for one in heat)])
    return [
        Picture(row, photo, overlay(photo, one / top))
        for row, photo, one in zip(rows, photos, heat, strict=True)
    ]


def overlay(photo: NDArray[np.uint8], share: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The photo in gray under the heat, which is in ``[0, 1]``."""
    from matplotlib import colormaps

    size = photo.shape[1], photo.shape[0]
    fine = np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BILINEAR))
    fine = np.clip(fine, 0, 1)[..., None]
    alpha, gray = 0.9 * np.sqrt(fine), photo.mean(axis=2, keepdims=True)
    colors = 255 * colormaps["inferno"](fine[..., 0])[..., :3]
    return np.asarray(gray * (1 - alpha) + colors * alpha).astype(np.uint8)


@torch.inference_mode()
def _tsne(
    session: Session, network: Network, records: Sequence[Record]
) -> NDArray[np.float32] | None:
    """Places of the images in the plane; ``None`` for fewer than three."""
    from sklearn.manifold import TSNE

    features = []
    for batch in session.batches(network, records, part=WHOLE):
        with session.machine.autocast():
            features.append(network.model(batch.to(session.machine.device)).features.float().cpu())
    if len(records) < 3:
        return None
    perplexity = min(_PERPLEXITY, (len(records) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
    return np.asarray(tsne.fit_transform(torch.cat(features).numpy()))
