"""The interface of every training objective, and the teacher's outputs it may use."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.base import AnomalyModel, Output
from utils.batch import Batch
from utils.device import moved


class Targets(Protocol):
    """The teacher's outputs for a batch: from the network itself, or from a table computed before.

    Attributes:
        feature_dim: Number of features of the teacher's vector.
    """

    feature_dim: int

    def __call__(self, batch: Batch) -> Output:
        """The teacher's logits and features for the batch's images, without gradients."""


class LiveTeacher:
    """A frozen teacher that computes its outputs for each batch.

    It is a plain object, not a module. So its parameters do not belong to the objective that uses
    it: they are never trained, never in training mode and never part of a checkpoint.

    Args:
        model: The teacher; it is frozen and set to eval mode.
    """

    def __init__(self, model: AnomalyModel) -> None:
        self.model = model.eval().requires_grad_(False)
        self.feature_dim = model.feature_dim

    def __call__(self, batch: Batch) -> Output:
        """The teacher's logits and features, from its own view of the images."""
        if batch.guide is None:
            raise ValueError("the batch has no teacher's view of its images")
        return self.look(batch.guide)

    @torch.no_grad()
    def look(self, batch: Batch) -> Output:
        """Logits and features of a batch that is in the teacher's view."""
        return self.model(batch)


class TableTargets:
    """A table of a teacher's outputs, computed once for each image.

    Args:
        paths: Paths of the images, one for each row.
        logits: Shape ``(N, 2)``.
        features: Shape ``(N, D)``.
        more: ``places`` and ``kinds``, as :class:`Output` has them, if a term needs them.
    """

    def __init__(
        self, paths: Sequence[str], logits: Tensor, features: Tensor, **more: Tensor
    ) -> None:
        self.row = {path: i for i, path in enumerate(paths)}
        self.logits, self.features, self.more = logits, features, more
        self.feature_dim = features.shape[1]

    def __call__(self, batch: Batch) -> Output:
        """Outputs for the images of the batch."""
        rows = torch.tensor([self.row[path] for path in batch.path])
        rows = moved(rows, self.logits.device)
        more: dict[str, Any] = {name: value[rows] for name, value in self.more.items()}
        return Output(self.logits[rows], self.features[rows], **more)


class Objective(nn.Module, ABC):
    """A training objective; built with ``(feature_dim, targets, *, options)``.

    It may have parameters of its own (a projection). They are trained with the network, but are not
    part of its weights.

    Attributes:
        needs_teacher: Whether it needs a teacher.
        needs_all_masks: Whether it needs masks, which show where in an image the anomaly is, of all
            anomalous images.
    """

    needs_teacher: bool = False
    needs_all_masks: bool = False

    @classmethod
    def needs_masks(cls, options: Mapping[str, Any]) -> bool:
        """Whether it needs masks, of all anomalous images or of ``mask_fraction`` of them."""
        return cls.needs_all_masks or bool(options.get("mask_weight"))

    @abstractmethod
    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss.

        Args:
            output: The output of the network that is trained.
            batch: Its input.

        Returns:
            ``loss``, the scalar to minimize, and other terms for the log.
        """


class Learner(nn.Module):
    """A network with its objective: the module that the training loop trains.

    Args:
        model: The network.
        objective: An objective that was built for this network.
    """

    def __init__(self, model: AnomalyModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss on ``batch``."""
        terms: dict[str, Tensor] = self.objective(self.model(batch), batch)
        return terms
