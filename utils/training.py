"""The one training loop, for teacher, student and trained baselines."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.batch import Batch
from utils.device import Machine
from utils.errors import UserError
from utils.ranks import mean_over_ranks, share
from utils.seeding import derive, seed_everything

_CHECK_EVERY = 10  # steps between two checks of the loss, each of which waits for the device


class EpochSource(Protocol):
    """Training data: gives the batches of each epoch."""

    @property
    def num_images(self) -> int:
        """Images per epoch."""

    def __len__(self) -> int:
        """Steps per epoch."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch ``number``, counted from 0."""


class Trainable(Protocol):
    """A network with its objective, ``batch -> {"loss": ..., other terms}``."""

    def train(self, mode: bool = True) -> nn.Module:
        """Switches to training mode."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss."""


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch of training.

    Attributes:
        number: Counted from 1.
        lr: Learning rate of the first parameter group at the end of the epoch.
        losses: Mean of each term over the images.
        seconds: Duration of the training, without validation.
        images_per_second: Training speed.
    """

    number: int
    lr: float
    losses: dict[str, float]
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Epochs:
    """The epochs to train.

    Each epoch has a seed of its own, so that a training that was interrupted and resumed ends with
    the same weights.

    Attributes:
        name: Name of the training, shown beside the progress bar.
        numbers: Numbers of the epochs, counted from 0.
        seed: The seeds of the epochs are derived from it.
    """

    name: str
    numbers: Iterable[int]
    seed: int


def fit(
    learner: Trainable,
    batches: EpochSource,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[float], float],
    *,
    epochs: Epochs,
    machine: Machine,
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Minimizes ``learner(batch)["loss"]``.

    Args:
        learner: Trained in place.
        batches: Training data.
        optimizer: Has the parameters to train; each group has an ``initial_lr``.
        schedule: Maps the progress in epochs to a factor on the learning rates.
        epochs: The epochs to train.
        machine: Device and precision.
        on_epoch: Called after each epoch; validates, logs and saves.

    Raises:
        UserError: If a loss is not finite, or a batch is too small for BatchNorm.
    """
    part = share()
    for number in epochs.numbers:
        # The main process has the random numbers of a single process; the others have their own.
        rank = [part.rank] if part.rank else []
        seed_everything(derive(epochs.seed, "epoch", number, *rank))
        learner.train()
        started = time.perf_counter()
        steps: list[_Step] = []
        title = f"{epochs.name} {number + 1}"
        with tqdm(
            total=batches.num_images, unit="img", desc=title, leave=False, disable=part.rank > 0
        ) as bar:
            for step, raw in enumerate(batches.epoch(number)):
                _set_rates(optimizer, schedule(number + step / len(batches)))
                batch = raw.to(machine.device)
                with machine.autocast():
                    terms = _terms(learner, batch)
                optimizer.zero_grad(set_to_none=True)
                terms["loss"].backward()
                optimizer.step()
                losses = {key: value.detach() for key, value in terms.items()}
                lr = optimizer.param_groups[0]["lr"]
                steps.append(_Step(losses, len(batch), batch.path, lr))
                if step % _CHECK_EVERY == 0:
                    _check_finite(steps, number, machine)
                    bar.set_postfix(loss=f"{losses['loss'].item():.3f}", refresh=False)
                bar.update(len(batch) * part.world_size)
        _check_finite(steps, number, machine)
        seconds = time.perf_counter() - started
        on_epoch(
            Epoch(
                number=number + 1,
                lr=optimizer.param_groups[0]["lr"],
                losses=_means(steps),
                seconds=seconds,
                images_per_second=batches.num_images / seconds,
            )
        )


class _Step(NamedTuple):
    """The figures of a step, kept until its epoch ends."""

    losses: dict[str, Tensor]
    size: int
    paths: Sequence[str]
    lr: float


def _terms(learner: Trainable, batch: Batch) -> dict[str, Tensor]:
    try:
        return learner(batch)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"batch_size: {len(batch)} image per step and process is too few for a BatchNorm of "
            "this network; take at least 2"
        ) from error


def _set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _check_finite(steps: Sequence[_Step], epoch: int, machine: Machine) -> None:
    """Raises UserError if one of the losses since the last check is not finite."""
    start = max(len(steps) - _CHECK_EVERY, 0)
    values = torch.stack([step.losses["loss"].float() for step in steps[start:]])
    bad = torch.nonzero(~values.isfinite()).flatten()
    if not len(bad):
        return
    number = start + int(bad[0])
    step = steps[number]
    advice = "take a lower lr"
    if machine.dtype != torch.float32:
        advice += ", or precision fp32"
    images = ", ".join(step.paths[:3]) + (" ..." if len(step.paths) > 3 else "")
    raise UserError(
        f"the loss is {values[bad[0]].item()} in epoch {epoch + 1}, step {number + 1} (learning "
        f"rate {step.lr:.3g}, images {images}); {advice}"
    )


def _means(steps: Sequence[_Step]) -> dict[str, float]:
    """Mean of each term over images, not over batches, and over all processes."""
    sizes = torch.tensor([step.size for step in steps], dtype=torch.float64)
    part = sizes / sizes.sum()
    return {
        key: float(
            mean_over_ranks(torch.stack([step.losses[key] for step in steps])).cpu().double() @ part
        )
        for key in steps[0].losses
    }
