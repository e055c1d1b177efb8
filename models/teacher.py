"""The teacher: a network that sees the image and reads its caption."""

from collections.abc import Iterable
from typing import Annotated

from models.base import AnomalyModel, Output
from models.classifiers import CLASSIFIERS, vector_classifier
from models.encoders import IMAGE_ENCODERS, TEXT_ENCODERS
from models.encoders.tower import Tower
from models.fusion import FUSIONS
from utils.batch import Batch
from utils.registry import Component


class Teacher(AnomalyModel):
    """Two encoders, a fusion and a classifier.

    Args:
        image_size: Height and width in pixels.
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        img_enc: The image encoder, with its options.
        text_enc: The text encoder, with its options.
        fusion: The fusion of image and text, with its options.
        classif: The classifier of the fused vector, with its options.
    """

    reads_text = True
    only_looks = True

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
        how = {"pooled": pooled, "load_weights": load_weights}
        self.img_enc = img_enc.build(IMAGE_ENCODERS, image_size, **how)
        self.text_enc = text_enc.build(TEXT_ENCODERS, **how)
        self.fusion = fusion.build(FUSIONS, self.img_enc.feature_dim, self.text_enc.feature_dim)
        self.feature_dim = self.fusion.out_dim
        self.classif = vector_classifier(classif, self.feature_dim)

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)``, the fused vector ``(B, D)`` and the attention weights."""
        if batch.caption is None:
            raise ValueError("the teacher needs captions, and the batch has none")
        text, mask = self.text_enc(batch.caption)
        fused = self.fusion(self.img_enc.look(batch), text, mask)
        return Output(self.classif(fused.vector), fused.vector, fused.attention)

    def encoders(self) -> Iterable[Tower]:
        """Both towers."""
        return self.img_enc, self.text_enc
