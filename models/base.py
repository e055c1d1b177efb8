"""The interface of every method: teacher, student or baseline."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from models.encoders.tower import Tower
from utils.batch import Batch
from utils.store import NOWHERE, Store


@dataclass(frozen=True)
class Output:
    """The output of a network for B images.

    Attributes:
        logits: Of "normal" and "anomalous", shape ``(B, 2)``.
        features: The vectors from which the logits are computed, shape ``(B, D)``.
        attention: Attention weights by direction; empty where there are none.
        maps: For each level the probabilities of "normal" and "anomalous" of each pixel,
            ``(B, 2, H, W)``; only of a network that is trained on masks.
        places: Of a student, the logit of each place, ``(B, h, w)``. Of a teacher, where the defect
            is, at least 0; NaN where that is not known. ``None``: there are none.
        kinds: Of a student, the logit of each of its detectors, ``(B, K)``. Of a teacher, 1 where
            the caption names the kind of defect, else 0; NaN where that is not known.
    """

    logits: Tensor
    features: Tensor
    attention: dict[str, Tensor] = field(default_factory=dict)
    maps: tuple[Tensor, ...] = ()
    places: Tensor | None = None
    kinds: Tensor | None = None


class AnomalyModel(nn.Module, ABC):
    """A network that gives each image a score: the higher, the more anomalous.

    Attributes:
        reads_text: Whether it needs captions; other networks never get any.
        has_map: Whether it can show where in an image the anomaly is.
        only_looks: Whether :meth:`forward` and :meth:`score` see an image by
            :meth:`ImageEncoder.look` alone, so that they need no pixels where features are kept.
        normal_only: Whether it learns from normal images alone, in one pass (:meth:`fit`), not by
            gradients.
        needs_object: Whether the score depends on the name of the object.
        num_references: Number of normal training images of each object that it needs before a test.
        feature_dim: D of :attr:`Output.features`.
        released_as: File of the authors' own weights for the option ``released``, and where it can
            be found; empty: there is none.
        store: Where results that take long to compute are kept, such as embeddings of sentences;
            set after the network was built.
    """

    reads_text: bool = False
    has_map: bool = False
    only_looks: bool = False
    normal_only: bool = False
    needs_object: bool = True
    num_references: int = 0
    feature_dim: int
    released_as: str = ""
    store: Store = NOWHERE

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Logits and features of a batch."""

    def score(self, batch: Batch) -> Tensor:
        """Probability of "anomalous", shape ``(B,)``, in ``[0, 1]``."""
        return self(batch).logits.float().softmax(dim=-1)[:, 1]

    def score_and_map(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores and anomaly maps; only for a network with :attr:`has_map`.

        Returns:
            Scores, shape ``(B,)``, the same as of :meth:`score`; anomaly maps, shape ``(B, H, W)``
            at the size of the image, fp32, higher is more anomalous.
        """
        raise NotImplementedError(f"{type(self).__name__} has no anomaly map")

    def remember(self, batch: Batch) -> None:
        """Adds normal references; only for a network with :attr:`num_references`."""
        raise NotImplementedError(f"{type(self).__name__} takes no references")

    def fit(self, batches: Iterable[Batch], *, num_images: int, seed: int) -> None:
        """Learns from normal images, each of which comes once; only if :attr:`normal_only`.

        Args:
            batches: The images, on the device of the network.
            num_images: How many they are.
            seed: Of random choices.

        Raises:
            UserError: If they are too few, or do not fit into memory.
        """
        raise NotImplementedError(f"{type(self).__name__} is trained by gradients")

    @classmethod
    def needs_training(cls, options: Mapping[str, Any]) -> bool:  # noqa: ARG003 - subclasses use it
        """Whether a network with these options must be trained before it is tested."""
        return True

    @abstractmethod
    def encoders(self) -> Iterable[Tower]:
        """The pretrained parts; they may have a learning rate of their own."""
