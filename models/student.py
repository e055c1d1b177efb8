"""The student: a network that sees only the image."""

from collections.abc import Iterable
from typing import Annotated

from models.base import AnomalyModel, Output
from models.classifiers import CLASSIFIERS
from models.encoders import IMAGE_ENCODERS
from models.encoders.tower import Tower
from utils.batch import Batch
from utils.registry import Component


class Student(AnomalyModel):
    """An image encoder and a classifier: the network that is used at inspection.

    Args:
        image_size: Height and width in pixels.
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        img_enc: The image encoder, with its options.
        classif: The classifier of the pooled features, with its options.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        img_enc: Annotated[Component, IMAGE_ENCODERS],
        classif: Annotated[Component, CLASSIFIERS],
    ) -> None:
        super().__init__()
        self.img_enc = img_enc.build(
            IMAGE_ENCODERS, image_size, pooled=True, load_weights=load_weights
        )
        self.feature_dim = self.img_enc.feature_dim
        self.classif = classif.build(CLASSIFIERS, self.feature_dim)

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)`` and pooled features ``(B, D)``."""
        features = self.img_enc(batch.image)[:, 0]
        return Output(self.classif(features), features)

    def encoders(self) -> Iterable[Tower]:
        """The image encoder."""
        return (self.img_enc,)
