"""Learning-rate schedules: pure functions of the epoch, without a state to restore.

The argument of a schedule is the progress of the training in epochs (2.5: in the middle of the
third). It returns the factor on the learning rate of each parameter group.
"""

import math
from typing import Annotated

from utils.ranges import Count, Fraction, NotNegative, Probability, Range, check_ranges

Epoch = Annotated[int, Range(0, 1_000_000)]
AtLeastOne = Annotated[float, Range(1)]


class WarmupStepDecay:
    """The published schedule: linear warm-up by the epoch, a plateau, then steps down.

    Source:
        The released ``optimizers/lr_scheduler.py``: epochs 0-3 use ``linspace(0.5, 2.0, 4)``, the
        last factor stays until epoch 10; then it is multiplied by 0.25 at epochs 10, 12, 14, ...

    Args:
        epochs: Length of the training; unused.
        warmup_from: Factor in the first epoch.
        warmup_to: Factor in the last epoch of the warm-up, and after it.
        warmup_epochs: Length of the warm-up.
        decay_from: First epoch, counted from 0, with a step down.
        decay_until: First epoch without further steps.
        decay_every: Epochs between steps.
        decay_rate: Factor of one step.
    """

    @check_ranges
    def __init__(
        self,
        epochs: int,
        *,
        warmup_from: NotNegative = 0.5,
        warmup_to: NotNegative = 2.0,
        warmup_epochs: Count = 4,
        decay_from: Epoch = 10,
        decay_until: Epoch = 20,
        decay_every: Count = 2,
        decay_rate: NotNegative = 0.25,
    ) -> None:
        self.warmup = warmup_from, warmup_to, warmup_epochs
        self.steps = decay_from, decay_until, decay_every
        self.decay_rate = decay_rate

    def __call__(self, epoch: float) -> float:
        """The factor at ``epoch``; constant within an epoch."""
        first, last, length = self.warmup
        number = math.floor(epoch)
        share = min(number / (length - 1), 1.0) if length > 1 else 1.0
        start, stop, every = self.steps
        passed = len(range(start, min(stop, number + 1), every))
        return (first + (last - first) * share) * self.decay_rate**passed


class OneCycle:
    """Cosine up to the full rate, then cosine down to almost 0.

    Source:
        Smith and Topin 2019, https://arxiv.org/abs/1708.07120; the numbers are those of
        ``torch.optim.lr_scheduler.OneCycleLR`` with ``max_lr`` = the group's learning rate.

    Args:
        epochs: Length of the training.
        warmup: Share of the training in which the rate rises, in ``(0, 1)``.
        start_divisor: The rate starts at ``lr / start_divisor``.
        end_divisor: The rate ends at ``lr / (start_divisor * end_divisor)``.
    """

    @check_ranges
    def __init__(
        self,
        epochs: int,
        *,
        warmup: Fraction = 0.3,
        start_divisor: AtLeastOne = 25.0,
        end_divisor: AtLeastOne = 1e4,
    ) -> None:
        self.epochs, self.top = epochs, warmup * epochs
        self.start, self.end = 1 / start_divisor, 1 / (start_divisor * end_divisor)

    def __call__(self, epoch: float) -> float:
        """The factor at ``epoch``, which may lie between two epochs."""
        if epoch <= self.top:
            return _cosine(self.start, 1.0, epoch / self.top)
        return _cosine(1.0, self.end, min((epoch - self.top) / (self.epochs - self.top), 1.0))


class Cosine:
    """Linear warm-up, then a cosine down to a floor.

    Source:
        Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, eq. 5, without restarts.

    Args:
        epochs: Length of the training.
        warmup_epochs: Length of the warm-up.
        floor: Factor at the end, in ``[0, 1]``.
    """

    @check_ranges
    def __init__(
        self, epochs: int, *, warmup_epochs: NotNegative = 1.0, floor: Probability = 0.0
    ) -> None:
        if warmup_epochs >= epochs:
            raise ValueError(f"warmup_epochs ({warmup_epochs}) must be less than epochs ({epochs})")
        self.epochs, self.warmup_epochs, self.floor = epochs, warmup_epochs, floor

    def __call__(self, epoch: float) -> float:
        """The factor at ``epoch``, which may lie between two epochs."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        share = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return _cosine(1.0, self.floor, min(share, 1.0))


class Constant:
    """The same rate in all epochs.

    Args:
        epochs: Length of the training; unused.
    """

    def __init__(self, epochs: int) -> None:
        pass

    def __call__(self, epoch: float) -> float:
        """1 at any ``epoch``."""
        return 1.0


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES = {
    "warmup_step_decay": WarmupStepDecay,
    "one_cycle": OneCycle,
    "cosine": Cosine,
    "constant": Constant,
}
