"""What every method - teacher, student or baseline - looks like from outside."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from models.encoders.tower import Tower
from utils.batch import Batch
from utils.store import NOWHERE, Store


@dataclass(frozen=True)
class Output:
    """What a network says about B images.

    Attributes:
        logits: Normal and anomalous, shape ``(B, 2)``.
        features: The vector the logits were read off, shape ``(B, D)``.
        attention: Attention weights by direction; empty where there are none.
        maps: Probabilities of normal and anomalous of each pixel, ``(B, 2, H, W)``, one per level;
            only of a network that is trained on masks.
    """

    logits: Tensor
    features: Tensor
    attention: dict[str, Tensor] = field(default_factory=dict)
    maps: tuple[Tensor, ...] = ()


class AnomalyModel(nn.Module):
    """A network that gives each image one number: the higher, the more anomalous.

    Attributes:
        reads_text: Whether it takes captions; one that does not is never given any.
        has_map: Whether it can say where in an image the anomaly is.
        num_references: Normal training images of each object that it wants to see before a test.
        feature_dim: D of :attr:`Output.features`.
        released_as: The authors' own weights that its option ``released`` takes, and where they
            are; empty: there are none.
        store: Where it keeps what takes long to compute, such as embeddings of sentences; set after
            the network was built.
    """

    reads_text: bool = False
    has_map: bool = False
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
        """Where the anomaly is, beside :meth:`score`; only of a network that :attr:`has_map`.

        Returns:
            Scores, shape ``(B,)``, as :meth:`score` gives them; anomaly maps, shape ``(B, H, W)``
            at the size of the image, fp32, higher is more anomalous.
        """
        raise NotImplementedError(f"{type(self).__name__} has no anomaly map")

    def remember(self, batch: Batch) -> None:
        """Looks at normal references; only of a network with :attr:`num_references`."""
        raise NotImplementedError(f"{type(self).__name__} takes no references")

    @classmethod
    def needs_training(cls, options: Mapping[str, Any]) -> bool:  # noqa: ARG003 - some ask it
        """Whether it is of use only after a training, built with these options of its YAML."""
        return True

    @abstractmethod
    def encoders(self) -> Iterable[Tower]:
        """The pretrained parts, which may learn at another rate than the rest."""
