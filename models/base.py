"""What every method - teacher, student or baseline - looks like from outside."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from models.encoders.tower import Tower
from utils.batch import Batch


@dataclass(frozen=True)
class Output:
    """What a network says about B images.

    Attributes:
        logits: Normal and anomalous, shape ``(B, 2)``.
        features: The vector the logits were read off, shape ``(B, D)``.
        attention: Attention weights by direction; empty where there are none.
    """

    logits: Tensor
    features: Tensor
    attention: dict[str, Tensor] = field(default_factory=dict)


class AnomalyModel(nn.Module):
    """A network that gives each image one number: the higher, the more anomalous.

    Attributes:
        reads_text: Whether it takes captions; one that does not is never given any.
        feature_dim: D of :attr:`Output.features`.
    """

    reads_text: bool = False
    feature_dim: int

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Logits and features of a batch."""

    def score(self, batch: Batch) -> Tensor:
        """Probability of "anomalous", shape ``(B,)``, in ``[0, 1]``."""
        return self(batch).logits.float().softmax(dim=-1)[:, 1]

    @abstractmethod
    def encoders(self) -> Iterable[Tower]:
        """The pretrained parts, which may learn at another rate than the rest."""
