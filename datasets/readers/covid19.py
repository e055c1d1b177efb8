"""COVID-19 radiography: chest X-rays, normal and COVID-19; image level, no split of its own.

Source:
    https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database; it has grown over
    the years, and figures of different years are of different images.
"""

from pathlib import Path

from datasets.readers.classes import read_classes
from datasets.record import NORMAL, Splits
from datasets.scan import find_folders
from utils.errors import UserError

_SHOWN = {"covid": "COVID-19", "covid-19": "COVID-19"}


def read_covid19(
    root: Path,
    *,
    objects: tuple[str, ...] = (),
    normal: str = "normal",
    anomalous: tuple[str, ...] = ("covid", "covid-19"),
    test_fraction: float = 0.3,
    split_seed: int = 0,
) -> Splits:
    """One folder per class, of which one is normal and some are anomalous; others are passed over.

    The pictures lie in the folder or in its ``images``; what is in ``masks`` shows the lungs and
    is no mask of an anomaly.

    Args:
        root: The folder of the data set.
        objects: ``[chest]`` or empty.
        normal: Name of the folder of normal pictures, in small letters.
        anomalous: Names of folders of anomalous pictures, in small letters; those that are there
            are taken.
        test_fraction: Share of the pictures put aside for the test.
        split_seed: Decides which they are.

    Raises:
        UserError: If the folders are not there.
        ValueError: If ``test_fraction`` is out of range.
    """
    shown = {normal: NORMAL, **{name: _SHOWN.get(name, name) for name in anomalous}}
    names = find_folders(root)
    folders = {name: shown[name.lower()] for name in names if name.lower() in shown}
    if len(set(folders.values())) < 2:
        raise UserError(
            f"{root}: expected a folder {normal} and one of {', '.join(anomalous)}, in small or "
            f"capital letters; there are {', '.join(names) or 'none'}. See dataset.dir"
        )
    return read_classes(
        root,
        {_pictures(root, name): said for name, said in folders.items()},
        at=("",),
        object_name="chest",
        objects=objects,
        test_fraction=test_fraction,
        split_seed=split_seed,
    )


def _pictures(root: Path, name: str) -> str:
    return f"{name}/images" if (root / name / "images").is_dir() else name
