"""A control: a network that reads the caption and never sees the image."""

from collections.abc import Iterable
from typing import Annotated

from models.base import AnomalyModel, Output
from models.classifiers import CLASSIFIERS, vector_classifier
from models.encoders import TEXT_ENCODERS
from models.encoders.tower import Tower
from utils.batch import Batch
from utils.registry import Component


class TextOnly(AnomalyModel):
    """A text encoder and a classifier.

    Where the captions name the defect, its scores are perfect although it sees no image: they show
    how much of a teacher's score comes from the caption alone.

    Args:
        image_size: Height and width in pixels; unused.
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        text_enc: The text encoder, with its options.
        classif: The classifier of the sentence embedding, with its options.
    """

    reads_text = True

    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        text_enc: Annotated[Component, TEXT_ENCODERS],
        classif: Annotated[Component, CLASSIFIERS],
    ) -> None:
        super().__init__()
        self.text_enc = text_enc.build(TEXT_ENCODERS, pooled=True, load_weights=load_weights)
        self.feature_dim = self.text_enc.feature_dim
        self.classif = vector_classifier(classif, self.feature_dim)

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)`` and sentence embeddings ``(B, D)``."""
        if batch.caption is None:
            raise ValueError("the text-only network needs captions, and the batch has none")
        features = self.text_enc(batch.caption)[0][:, 0]
        return Output(self.classif(features), features)

    def encoders(self) -> Iterable[Tower]:
        """The text encoder."""
        return (self.text_enc,)
