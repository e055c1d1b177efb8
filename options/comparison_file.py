"""The options of a comparison: a list of test images, and the methods that are scored on it."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import yaml

from options.load import from_tree, load
from options.overrides import from_overrides
from options.schema import FOLDS, SEEDS, Misc, Run, Selection, Source
from options.tree import Mistake, merge, quoted
from options.yaml_text import read
from utils.errors import UserError
from utils.registry import NOT_AN_OPTION, did_you_mean
from utils.store import FOLDER

_LOCAL = ("cache", "device")  # change no result


@dataclass(frozen=True, kw_only=True)
class ImageList(Selection):
    """The data set whose test images every column is scored on, and whose others train them.

    Attributes:
        reader: The reader of its layout; the reader's own options stand beside it.
        dir: Folder of the data.
        leave_out: A list of images that are left out, as ``check.py --fix-list FILE`` writes it.
        skip_broken: Whether images are left out that cannot be read, or whose masks cannot. A run
            keeps the list in ``<exp.dir>/broken_images.txt``, for later commands.
        max_pixels: Pixels of a picture above which it is refused as a decompression bomb. While it
            is checked, a picture takes up to 10 bytes a pixel.
        max_anomalies: Number of anomalous training images of each object; this and what follows as
            in the data set of an experiment.
        hold_out: Objects that are not trained on; only these are tested then.
        hold_out_anomalies: Number of anomalous images of each of these objects that are trained on
            after all.
        hold_out_defects: Kinds of defect that are not trained on; only these are tested then.
        fold: The part of the training images that is tested; for all of them ``folds`` beside the
            columns.
        cache: Folder for decoded images; ``null``: they are decoded each time.
    """

    cache: Path | None = FOLDER


@dataclass(frozen=True, kw_only=True)
class Column:
    """One method of a comparison.

    Attributes:
        options: Its options file, with which ``run.py`` trains it.
        overrides: Options ``a.b=value`` that override that file.
        title: Its title in the table; empty: its name in the comparison.
        stage: The network of the file that is scored.
        text: The text for a network that reads text. ``object``: the name of the object;
            ``oracle``: the true caption, so that the result is an upper bound.
        trained_on: Its training data, as the table shows them; empty: taken from its options.
        note: A footnote.
    """

    options: Path
    overrides: tuple[str, ...] = ()
    title: str = ""
    stage: Literal["teacher", "student", "baseline"] = "student"
    text: Literal["object", "oracle"] = "object"
    trained_on: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods side by side on one list of test images.

    Attributes:
        dir: Folder for the tables and for each column's scores.
        dataset: The test images; they replace those of each column's own options.
        misc: Seed, device and precision of each column.
        columns: The methods in order, each with a short name; ``null`` leaves one out.
        overrides: Options ``a.b=value`` of all columns, as in ``engine.epochs=8``. Where a column
            overrides the same option, or the block that it is in, its own value counts.
        title: Title of the tables.
        layout: The rows: ``objects`` as published, or ``methods`` if there are many.
        seeds: More than 1: mean and spread over the runs that ``run.py --seeds`` writes to
            ``<exp.dir>/seed_<seed>``, beginning with ``misc.seed``.
        folds: For a choice between recipes without the test images: cross-validation. Each column
            has a network for each of so many parts of the training images, which has not seen this
            part and scores it; the figures are over the scores of all parts. ``null``: the test
            images, one network for each seed.
        against: The column that all others are compared with: a second table has each one's
            difference from it, with a paired bootstrap interval over images and seeds.
        localization: Whether the second table has pointing game and heat in mask, too; for data
            sets with masks.
        runs: Folder of the networks, each in a folder with the name of its column, whatever
            ``exp.dir`` its options name; ``null``: there.
        published: A file of published figures that are printed below, as in ``docs/published``.
        command: The file and the overrides, as on the command line.
    """

    dir: Path
    dataset: ImageList
    columns: dict[str, Column | None]
    overrides: tuple[str, ...] = ()
    misc: Misc = field(default_factory=Misc)
    title: str = "Comparison"
    layout: Literal["objects", "methods"] = "objects"
    seeds: Annotated[int, SEEDS] = 1
    folds: Annotated[int, FOLDS] | None = None
    against: str = ""
    localization: bool = False
    runs: Path | None = None
    published: Path | None = None
    command: str = field(default="", metadata=NOT_AN_OPTION)

    def __post_init__(self) -> None:
        """Checks that there is a column, that ``against`` is one, and names can be folders."""
        if not self.chosen:
            raise ValueError("columns: there is no column to score")
        if self.against and self.against not in self.chosen:
            hint = did_you_mean(self.against, self.chosen)
            raise ValueError(f"against: there is no column {self.against!r}; {hint}")
        if self.folds and self.dataset.fold:
            raise ValueError("folds: write either folds, for all of them, or dataset.fold, for one")
        for name in self.columns:
            if not re.fullmatch(r"\w[\w.-]{0,99}", name):
                raise ValueError(
                    f"columns: {quoted(name)} must be at most 100 letters, digits, '_', '-' and '.'"
                )

    @property
    def chosen(self) -> dict[str, Column]:
        """The columns that are not left out."""
        return {name: column for name, column in self.columns.items() if column is not None}

    @property
    def all_seeds(self) -> Sequence[int]:
        """``misc.seed`` and the seeds after it."""
        return range(self.misc.seed, self.misc.seed + self.seeds)

    @property
    def all_folds(self) -> Sequence[int | None]:
        """The numbers of the folds, from 1; without cross-validation only ``None``."""
        return range(1, self.folds + 1) if self.folds else (None,)

    def dataset_of(self, fold: int | None) -> ImageList:
        """The data set, of which this fold is tested."""
        if self.folds is None or fold is None:
            return self.dataset
        return replace(self.dataset, fold=(fold, self.folds))

    def overrides_of(self, name: str) -> list[str]:
        """The options of column ``name`` that override its file."""
        own = self.chosen[name].overrides
        keys = [text.partition("=")[0] for text in own]
        common = [
            text
            for text in self.overrides
            if not any(f"{text.partition('=')[0]}.".startswith(f"{key}.") for key in keys)
        ]
        return [*common, *own]

    def place_of(self, folder: Path, seed: int, fold: int | None) -> Path:
        """Where in the folder of a column this network is, or its scores."""
        folder = folder / f"seed_{seed}" if self.seeds > 1 else folder
        return folder / f"fold_{fold}" if fold else folder

    def run_of(self, name: str, seed: int, fold: int | None = None) -> Run:
        """The experiment behind column ``name``, with this comparison's images, seed and machine.

        Raises:
            UserError: If its options are wrong, or have no such stage.
        """
        column = self.chosen[name]
        run = load(column.options, self.overrides_of(name))
        if column.stage not in run.stages:
            has = " and ".join(run.stages)
            raise UserError(f"{column.options}: has no stage {column.stage}; it has {has}")
        if run.dataset.per_object:
            raise UserError(
                f"{column.options}: a column is one network for all objects, so dataset.per_object "
                "cannot be compared; use test.py FILE"
            )
        if run.dataset.hold_out not in ((), self.dataset.hold_out):
            raise UserError(
                f"{column.options}: dataset.hold_out is the same for all columns; write it into "
                "dataset of the comparison"
            )
        folder = self.runs / name if self.runs else run.exp.dir
        return replace(
            run,
            exp=replace(run.exp, dir=self.place_of(folder, seed, fold)),
            dataset=replace(run.dataset, **vars(self.dataset_of(fold))),
            misc=replace(self.misc, seed=seed),
            command=self.training_command(name, seed, fold),
        )

    def training_command(self, name: str, seed: int, fold: int | None = None) -> str:
        """Arguments for ``run.py`` to train column ``name``: of all seeds, or of one and a fold."""
        column = self.chosen[name]
        before = load(column.options, self.overrides_of(name))
        misc = replace(self.misc, seed=seed if fold else self.misc.seed)
        changed = {
            f"{section}.{key}": _spelled(value)
            for section, now, then in (
                ("dataset", _written(self.dataset_of(fold)), _written(before.dataset)),
                ("misc", vars(misc), vars(before.misc)),
            )
            for key, value in now.items()
            if key not in _LOCAL and value != then.get(key)
        }
        folder = self.runs / name if self.runs else before.exp.dir
        if self.runs or fold:
            changed["exp.dir"] = str(self.place_of(folder, seed, fold) if fold else folder)
        own = [text for text in self.overrides_of(name) if text.partition("=")[0] not in changed]
        over = [f"{key}={value}" for key, value in changed.items()]
        seeds = ["--seeds", str(self.seeds)] if self.seeds > 1 and not fold else []
        return shlex.join([str(column.options), *own, *over, *seeds])


def _written(source: Selection) -> dict[str, object]:
    """A data set's options as YAML has them."""
    base = {field.name for field in fields(Source)}
    limits = {f.name: getattr(source, f.name) for f in fields(Selection) if f.name not in base}
    return {"name": source.name, "dir": source.dir, **source.reader.options, **limits}


def _spelled(value: object) -> str:
    """A value as it is written after ``=`` on the command line."""
    if isinstance(value, tuple):
        text = yaml.safe_dump(list(value), default_flow_style=True, allow_unicode=True, width=1e9)
        return text.strip()
    return "null" if value is None else str(value)


def load_comparison(path: Path, overrides: Sequence[str] = ()) -> Comparison:
    """Reads a comparison file.

    Args:
        path: YAML file; it may include others, as options files do.
        overrides: ``a.b=value`` strings from the command line, applied last.

    Raises:
        UserError: With one line per mistake, each starting ``file:line:``.
    """
    mistakes: list[Mistake] = []
    tree, over = read(path, mistakes), from_overrides(overrides, mistakes)
    file = tree.where
    merge(tree, over).where = file
    return from_tree(Comparison, tree, mistakes)
