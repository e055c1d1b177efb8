"""Whether each method's heat lies on the defect."""

import pandas as pd
from tqdm import tqdm

from jobs.scoring import maps_of
from jobs.session import Network, Session
from jobs.visualizing.localization import locate
from utils.errors import NothingToShowError

FIGURES = ("pointing", "pointing_near", "heat_in_mask")


def located(session: Session, network: Network, scores: pd.DataFrame) -> pd.DataFrame:
    """The scores with a column for each of ``FIGURES``, in ``[0, 1]``.

    NaN for images without a mask that shows a defect, and for a network that has no map.
    """
    records = [record for record in session.splits["test"] if record.mask]
    found: dict[str, dict[str, float]] = {}
    batches = session.batches(network, records, with_masks=True)
    for batch in tqdm(batches, desc="locating", unit="batch", leave=False):
        try:
            heat = maps_of(network.model, batch, session.machine).numpy()
        except NothingToShowError:
            break
        assert batch.mask is not None  # they were asked for
        for path, of_image, mask in zip(batch.path, heat, batch.mask.numpy(), strict=True):
            found[path] = locate(of_image, mask == 1, 1)
    columns = {
        name: [found.get(path, {}).get(name, float("nan")) for path in scores["path"]]
        for name in FIGURES
    }
    return scores.assign(**columns)
