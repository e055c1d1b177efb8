"""What every training objective looks like from outside."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from models.base import AnomalyModel, Output
from utils.batch import Batch
from utils.device import moved


class Targets(Protocol):
    """Where a teacher's opinion comes from: the live network, or a table computed before.

    Attributes:
        feature_dim: Features of the teacher's vector.
    """

    feature_dim: int

    def __call__(self, batch: Batch) -> Output:
        """The teacher's logits and features for the batch's images, without gradients."""


class LiveTeacher:
    """A frozen teacher, asked anew for every batch.

    It is a plain object, not a module: whoever holds it does not own its parameters, so it is
    never trained, never switched to training mode and never part of a checkpoint.

    Args:
        model: The teacher; put in eval mode and frozen here.
    """

    def __init__(self, model: AnomalyModel) -> None:
        self.model = model.eval().requires_grad_(False)
        self.feature_dim = model.feature_dim

    def __call__(self, batch: Batch) -> Output:
        """Logits and features, as the teacher sees and reads the images."""
        if batch.guide is None:
            raise ValueError("the batch does not hold the teacher's view of its images")
        return self.look(batch.guide)

    @torch.no_grad()
    def look(self, batch: Batch) -> Output:
        """Logits and features of a batch in the teacher's own view."""
        return self.model(batch)


class TableTargets:
    """What a teacher said once about each image.

    Args:
        paths: The images.
        logits: Shape ``(N, 2)``.
        features: Shape ``(N, D)``.
    """

    def __init__(self, paths: Sequence[str], logits: Tensor, features: Tensor) -> None:
        self.row = {path: i for i, path in enumerate(paths)}
        self.logits, self.features = logits, features
        self.feature_dim = features.shape[1]

    def __call__(self, batch: Batch) -> Output:
        """Logits and features of the batch's images."""
        rows = torch.tensor([self.row[path] for path in batch.path])
        rows = moved(rows, self.logits.device)
        return Output(self.logits[rows], self.features[rows])


class Objective(nn.Module):
    """What to minimise; built with ``(feature_dim, targets, *, options)``.

    It may have parameters of its own (a projection); they are trained with the network and stay
    out of what is shipped.

    Attributes:
        needs_teacher: Whether it makes sense without one.
        needs_masks: Whether it wants to know where in an image the anomaly is.
    """

    needs_teacher: bool = False
    needs_masks: bool = False

    @abstractmethod
    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss.

        Args:
            output: What the network that is trained says.
            batch: What it was shown.

        Returns:
            ``loss``, a scalar to minimise, and any other term worth logging.
        """


class Learner(nn.Module):
    """A network together with what it minimises: what the training loop sees.

    Args:
        model: The network.
        objective: Built for it.
    """

    def __init__(self, model: AnomalyModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss on ``batch``."""
        terms: dict[str, Tensor] = self.objective(self.model(batch), batch)
        return terms
