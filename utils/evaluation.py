"""Evaluation in two pure steps: the scores of all images, then a table of each object."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from utils.batch import Batch
from utils.errors import UserError

Scorer = Callable[[Batch], Tensor]
METRICS = ("auroc", "aupr")


@torch.inference_mode()
def score_images(score: Scorer, batches: Iterable[Batch], device: torch.device) -> pd.DataFrame:
    """The scores of images, one row each, in the order of ``batches``.

    Args:
        score: Maps a batch of B images to B scores, higher is more anomalous.
        batches: The images.
        device: The device to which the batches are moved.

    Returns:
        Columns ``path``, ``object``, ``label`` (0 or 1) and ``score``.

    Raises:
        UserError: If a score is not finite.
    """
    empty = {"path": [], "object": [], "label": np.empty(0, int), "score": np.empty(0)}
    rows = [pd.DataFrame(empty)]
    for batch in batches:
        scores = score(batch.to(device)).cpu().double().numpy()  # mps has no float64
        if not np.isfinite(scores).all():
            bad = int(np.argmin(np.isfinite(scores)))
            raise UserError(
                f"the score of {batch.path[bad]} is {scores[bad]}; train with a lower lr, or use "
                "precision fp32"
            )
        columns = {"path": batch.path, "object": batch.object, "label": batch.label.numpy()}
        rows.append(pd.DataFrame({**columns, "score": scores}))
    return pd.concat(rows, ignore_index=True)


def per_object(scores: pd.DataFrame) -> pd.DataFrame:
    """AUROC and AUPR of each object, then their unweighted mean.

    Args:
        scores: As :func:`score_images` returns.

    Returns:
        Index: the objects in alphabetical order, then ``mean``. Columns: ``n`` (images),
        ``anomalies``, ``prevalence`` (their share, which is the AUPR of chance), ``auroc`` and
        ``aupr``; the last three in percent. AUPR is average precision (a sum over steps, not
        trapezoids) with "anomalous" as the positive class. An object with a single label has no
        AUROC and AUPR (NaN) and is left out of all means. In the row ``mean``, ``n`` and
        ``anomalies`` are sums over all objects.
    """
    rows = {str(name): _figures(group) for name, group in scores.groupby("object", sort=True)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    averaged = table[table["auroc"].notna()] if table["auroc"].notna().any() else table
    sums, means = table[["n", "anomalies"]].sum(), averaged[["prevalence", *METRICS]].mean()
    table.loc["mean"] = {**sums, **means}
    return table.astype({"n": int, "anomalies": int})


def _figures(group: pd.DataFrame) -> dict[str, float]:
    label, score = group["label"], group["score"]
    figures: dict[str, float] = {
        "n": len(group),
        "anomalies": int(label.sum()),
        "prevalence": 100 * float(label.mean()),
    }
    has_both = label.nunique() == 2
    figures["auroc"] = 100 * float(roc_auc_score(label, score)) if has_both else float("nan")
    figures["aupr"] = (
        100 * float(average_precision_score(label, score)) if has_both else float("nan")
    )
    return figures


def num_averaged(table: pd.DataFrame) -> tuple[int, Sequence[str]]:
    """Number of objects in the means of :func:`per_object`, and names of those left out."""
    objects = table.drop(index="mean")
    left_out = objects.index[objects["auroc"].isna()]
    return len(objects) - len(left_out), [str(name) for name in left_out]
