"""Saves the state of a training after each epoch, and restores it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from jobs.build import evaluation_batches
from jobs.job import Job
from jobs.run_folder import StageFolder
from jobs.scoring import score_all
from models.objectives.base import Learner
from utils.checkpoint import save_weights
from utils.console import say
from utils.errors import UserError
from utils.evaluation import METRICS, per_object
from utils.ranks import is_main, wait_for_all
from utils.runlog import Row, RunLog
from utils.training import Epoch

TIMES = ("seconds", "images_per_second")
# Options of optimizers that need a state which is not saved while they are off.
_SWITCHES = ("momentum",)


class Keeper:
    """After each epoch: validates, keeps the best weights and the last state, and logs.

    The best weights are written first, then the log, then the state, which ends the epoch. If the
    program is killed before that, the epoch is trained again, with the same result.

    Args:
        job: The network that is trained.
        learner: The network with its objective.
        optimizer: Its optimizer.
        about: Metadata that are stored with the weights.
        history: Rows of the finished epochs; rows are added to it.

    Attributes:
        num_saved: Epochs that a resumed training need not repeat.
    """

    def __init__(
        self,
        job: Job,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        about: Mapping[str, Any],
        history: list[Row],
    ) -> None:
        self.job, self.learner, self.optimizer, self.about = job, learner, optimizer, about
        self.history, self.num_saved = history, len(history)
        self.log = RunLog(job.folder.path, history) if is_main() else None
        self.validation = None
        if job.data.val:
            device = job.machine.device
            self.validation = evaluation_batches(job.data.store, job.stage, job.data.val, device)

    def __call__(self, epoch: Epoch) -> None:
        """Ends an epoch: validation, best weights, log, state, and one line on the terminal."""
        figures = self._validate()
        row: Row = {
            "epoch": epoch.number,
            "lr": epoch.lr,
            **epoch.losses,
            **figures,
            "seconds": epoch.seconds,
            "images_per_second": epoch.images_per_second,
        }
        is_best = self._is_best(row)
        self.history.append(row)
        if self.log is not None:
            self._write(self.log, row, is_best=is_best)
        self.num_saved = len(self.history)
        validation = (
            f"validation AUROC {figures['val_auroc']:.1f} AUPR {figures['val_aupr']:.1f}, "
            if figures
            else ""
        )
        say(
            f"{self.job.name} {epoch.number}/{self.job.stage.engine.epochs}: loss "
            f"{epoch.losses['loss']:.4f}, {validation}{epoch.images_per_second:.0f} images/s"
            + (" *" if is_best else "")
        )

    def _is_best(self, row: Row) -> bool:
        """Whether an epoch is better than all before: validation AUPR, at a tie the lower loss."""
        if self.validation is None or self.job.stage.engine.keep == "last":
            return True
        # A run that is resumed with other options may have had no validation images before.
        earlier = [one for one in self.history if "val_aupr" in one]
        return all(_rank(row) > _rank(one) for one in earlier)

    def _write(self, log: RunLog, row: Row, *, is_best: bool) -> None:
        if is_best:
            # With times in them, files with the same weights would differ.
            figures = {name: value for name, value in row.items() if name not in TIMES}
            save_weights(self.learner.model, self.job.folder.best, {**self.about, **figures})
        log.update()
        self.job.folder.save_state(
            {
                "learner": self.learner.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": self.history,
            }
        )

    def _validate(self) -> Row:
        """Mean AUROC and AUPR over objects, in percent, and the mean cross-entropy in nats."""
        if self.validation is None:
            return {}
        scores = score_all(self.learner.model, self.validation, self.job.machine)
        table = per_object(scores)
        auroc, aupr = (float(table[metric].iloc[-1]) for metric in METRICS)
        right = np.where(scores["label"] == 1, scores["score"], 1 - scores["score"])
        loss = float(-np.log(np.maximum(right, 1e-12)).mean())
        return {"val_auroc": auroc, "val_aupr": aupr, "val_loss": loss}

    def close(self) -> None:
        """Closes the log, and waits until everything is on disk."""
        if self.log is not None:
            self.log.close()
        wait_for_all()


def _rank(row: Row) -> tuple[float, float]:
    return row["val_aupr"], -row["val_loss"]


def restore(
    learner: Learner, optimizer: torch.optim.Optimizer, state: dict[str, Any], folder: StageFolder
) -> None:
    """Loads a state; the options of the optimizer stay those of this run.

    Raises:
        UserError: If the state belongs to another network or optimizer.
    """
    own = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    try:
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        for group, options in zip(optimizer.param_groups, own, strict=True):
            if _needs_state(group) != _needs_state(options):
                raise ValueError("a part of this optimizer's state is missing")
            group.update(options)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()[:20])
        raise UserError(
            f"{folder.last}: does not fit these options ({reason}); choose another exp.dir"
        ) from error


def _needs_state(group: Mapping[str, Any]) -> dict[str, bool]:
    """The names of an optimizer's options, and whether those are on that need a state."""
    return {k: k in _SWITCHES and bool(v) for k, v in group.items() if k != "params"}
