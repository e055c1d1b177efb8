"""A control: reads the caption and never looks at the image."""

from collections.abc import Iterable
from typing import Annotated

from models.base import AnomalyModel, Output
from models.classifiers import CLASSIFIERS
from models.encoders import TEXT_ENCODERS
from models.encoders.tower import Tower
from utils.batch import Batch
from utils.registry import Component


class TextOnly(AnomalyModel):
    """A text encoder and a classifier.

    With captions that say what is wrong it is perfect, and blind: it shows how much of a
    teacher's score is the label in other words.

    Args:
        image_size: Height and width in pixels; unused.
        load_weights: ``False`` where a checkpoint is loaded right after.
        text_enc: The text encoder, with its options.
        classif: From the sentence embedding to the logits, with its options.
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
        self.text_enc = text_enc.build(TEXT_ENCODERS, True, load_weights)
        self.feature_dim = self.text_enc.feature_dim
        self.classif = classif.build(CLASSIFIERS, self.feature_dim)

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)`` and sentence embeddings ``(B, D)``."""
        if batch.caption is None:
            raise ValueError("the text-only network reads text: the batch has no captions")
        features = self.text_enc(batch.caption)[0][:, 0]
        return Output(self.classif(features), features)

    def encoders(self) -> Iterable[Tower]:
        """The text encoder."""
        return (self.text_enc,)
