"""The data are checked before anything is learned from them."""

from collections.abc import Iterable
from pathlib import Path

from datasets.check import inspect
from datasets.record import Splits
from options.assemble import needs_masks
from options.images import Data
from options.schema import Run
from utils.errors import UserError
from utils.ranks import is_main, main_first
from utils.runlog import say

_SHOWN = 20  # errors said before the run stops
_HINT = "python -m datasets.check, with the same options, shows it all"


def check_data(run: Run, data: Iterable[Data]) -> None:
    """Says in one line that nothing is wrong, or stops the run.

    Masks are looked at where something is learned from them.

    Raises:
        UserError: If an image cannot be read, is in train and in test, or has two labels.
    """
    with main_first():
        if not is_main():
            return
        for root, splits in _merged(data).items():
            found = inspect(
                root,
                splits,
                cache=run.dataset.cache,
                allow_leak=run.dataset.allow_leak,
                with_masks=any(needs_masks(stage) for stage in run.stages.values()),
                is_whole=False,  # of auxiliary data, the test images
            )
            said = f"{root}: {found.summary}"
            if found.errors:
                more = len(found.errors) - _SHOWN
                cut = [f"... and {more} more errors"] if more > 0 else []
                raise UserError("\n".join([f"{said}; {_HINT}", *found.errors[:_SHOWN], *cut]))
            say(said + (f"; {_HINT}" if found.findings else ""))


def _merged(data: Iterable[Data]) -> dict[Path, Splits]:
    """Every list once: stages have it in common, and objects with networks of their own a part."""
    merged: dict[Path, Splits] = {}
    for one in data:
        splits = merged.setdefault(one.root, {"train": [], "test": []})
        for split, records in splits.items():
            known = set(records)
            records += [record for record in one.splits[split] if record not in known]
    return merged
