"""What a training leaves on disk after each epoch, and how it goes on from there."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from datasets.image_text import Batches
from jobs.run_folder import StageFolder
from jobs.scoring import score_all
from models.base import AnomalyModel
from models.objectives.base import Learner
from utils.checkpoint import save_weights
from utils.console import say
from utils.device import Machine
from utils.errors import UserError
from utils.evaluation import METRICS, per_object
from utils.ranks import wait_for_all
from utils.runlog import Row, RunLog
from utils.training import Epoch

# Options of optimisers that need, once they are switched on, numbers that were not kept before.
_SWITCHES = ("amsgrad", "centered", "momentum")


class Keeper:
    """After each epoch: validates, keeps the best and the last state, and logs.

    The order matters if the program is killed in between: the best weights and the log are written
    before the state that says the epoch is over. Killed before that, the epoch is trained again and
    ends with the same best weights and the same row.
    """

    def __init__(
        self,
        folder: StageFolder,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        validation: Batches | None,
        machine: Machine,
        *,
        about: dict[str, Any],
        best: tuple[float, ...] | None,
        log: RunLog | None,
        history: list[Row],
        epochs: int,
        keep: str,
    ) -> None:
        self.folder, self.learner, self.optimizer = folder, learner, optimizer
        self.validation, self.machine, self.about = validation, machine, about
        self.best, self.log, self.history, self.epochs = best, log, history, epochs
        self.keep = keep

    def __call__(self, epoch: Epoch) -> None:
        """Validation AUPR decides on the best epoch; at a tie, the lower validation loss."""
        found, rank = {}, None
        if self.validation is not None:
            found = _validate(self.learner.model, self.validation, self.machine)
            rank = (found["val_aupr"], -found["val_loss"])
        is_best = rank is None or self.keep == "last" or self.best is None or rank > self.best
        if is_best:
            self.best = rank
        row: Row = {
            "epoch": epoch.number,
            "lr": epoch.lr,
            **epoch.losses,
            **found,
            "seconds": epoch.seconds,
            "images_per_second": epoch.images_per_second,
        }
        self.history.append(row)
        if self.log is not None:
            self.write(self.log, row, is_best=is_best)
        say(
            f"{self.folder.stage} {epoch.number}/{self.epochs}: loss {epoch.losses['loss']:.4f}, "
            + (
                f"validation AUROC {found['val_auroc']:.1f} AUPR {found['val_aupr']:.1f}, "
                if found
                else ""
            )
            + f"{epoch.images_per_second:.0f} images/s{' *' if is_best else ''}"
        )

    def write(self, log: RunLog, row: Row, *, is_best: bool) -> None:
        """Best weights, then the log, then the state; see above."""
        if is_best:
            about = {**self.about, **row}
            save_weights(self.learner.model, self.folder.best, about)
        log.add(row)
        self.folder.save_state(
            {
                "learner": self.learner.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": self.history,
                "best": list(self.best or ()),
            }
        )

    def close(self) -> None:
        """Closes the log, and waits until all of it is on disk."""
        if self.log is not None:
            self.log.close()
        wait_for_all()


def _validate(model: AnomalyModel, batches: Batches, machine: Machine) -> Row:
    """Mean AUROC and AUPR over objects, in percent, and the mean cross-entropy in nats."""
    scores = score_all(model, batches, machine)
    table = per_object(scores)
    auroc, aupr = (float(table[metric].iloc[-1]) for metric in METRICS)
    right = np.where(scores["label"] == 1, scores["score"], 1 - scores["score"])
    loss = float(-np.log(np.maximum(right, 1e-12)).mean())
    return {"val_auroc": auroc, "val_aupr": aupr, "val_loss": loss}


def restore(
    learner: Learner, optimizer: torch.optim.Optimizer, state: dict[str, Any], folder: StageFolder
) -> None:
    """Loads a state; the options of the optimiser stay those of this run.

    Raises:
        UserError: If the state is that of another network, or of another optimiser.
    """
    own = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    try:
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        for group, options in zip(optimizer.param_groups, own, strict=True):
            if _kept_for(group) != _kept_for(options):
                raise ValueError("it lacks what this optimizer keeps")
            group.update(options)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()[:20])
        raise UserError(
            f"{folder.last}: does not fit these options ({reason}); choose another exp.dir"
        ) from error


def _kept_for(group: Mapping[str, Any]) -> dict[str, bool]:
    """What decides on the numbers that an optimiser keeps: which options it has, and switches."""
    return {k: k in _SWITCHES and bool(v) for k, v in group.items() if k != "params"}
