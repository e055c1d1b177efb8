"""The teacher: looks at the image and reads what is written about it."""

from collections.abc import Iterable
from typing import Annotated

from models.base import AnomalyModel, Output
from models.classifiers import CLASSIFIERS
from models.encoders import IMAGE_ENCODERS, TEXT_ENCODERS
from models.encoders.tower import Tower
from models.fusion import FUSIONS
from utils.batch import Batch
from utils.registry import Component


class Teacher(AnomalyModel):
    """Two encoders, a fusion and a classifier.

    Args:
        image_size: Height and width in pixels.
        load_weights: ``False`` where a checkpoint is loaded right after.
        img_enc: The image encoder, with its options.
        text_enc: The text encoder, with its options.
        fusion: How image and text come together, with its options.
        classif: From the fused vector to the logits, with its options.
    """

    reads_text = True

    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        img_enc: Annotated[Component, IMAGE_ENCODERS],
        text_enc: Annotated[Component, TEXT_ENCODERS],
        fusion: Annotated[Component, FUSIONS],
        classif: Annotated[Component, CLASSIFIERS],
    ) -> None:
        super().__init__()
        pooled = FUSIONS[fusion.name].pooled
        self.img_enc = img_enc.build(IMAGE_ENCODERS, image_size, pooled, load_weights)
        self.text_enc = text_enc.build(TEXT_ENCODERS, pooled, load_weights)
        self.fusion = fusion.build(FUSIONS, self.img_enc.feature_dim, self.text_enc.feature_dim)
        self.feature_dim = self.fusion.out_dim
        self.classif = classif.build(CLASSIFIERS, self.feature_dim)

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)``, the fused vector ``(B, D)`` and the attention weights."""
        if batch.caption is None:
            raise ValueError("the teacher reads text: the batch has no captions")
        text, mask = self.text_enc(batch.caption)
        fused = self.fusion(self.img_enc(batch.image), text, mask)
        return Output(self.classif(fused.vector), fused.vector, fused.attention)

    def encoders(self) -> Iterable[Tower]:
        """Both towers."""
        return self.img_enc, self.text_enc
