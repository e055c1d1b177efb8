"""The student: a network that sees only the image."""

from collections.abc import Iterable
from typing import Annotated

from torch import Tensor

from models.base import AnomalyModel, Output
from models.classifiers import CLASSIFIERS
from models.encoders import IMAGE_ENCODERS
from models.encoders.tower import Tower
from models.places import pixel_maps, recorded_grid
from utils.batch import Batch
from utils.registry import Component


class Student(AnomalyModel):
    """An image encoder and a classifier: the network that is used at inspection.

    Args:
        image_size: Height and width in pixels.
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        img_enc: The image encoder, with its options.
        classif: The classifier of the pooled features, or of all places, with its options.

    Attributes:
        has_map: Whether the classifier looks at places, so that their logits are a map.
    """

    needs_object = False

    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        img_enc: Annotated[Component, IMAGE_ENCODERS],
        classif: Annotated[Component, CLASSIFIERS],
    ) -> None:
        super().__init__()
        self.has_map = CLASSIFIERS[classif.name].of_places
        self.img_enc = img_enc.build(
            IMAGE_ENCODERS, image_size, pooled=not self.has_map, load_weights=load_weights
        )
        self.feature_dim = self.img_enc.feature_dim
        self.classif = classif.build(CLASSIFIERS, self.feature_dim)

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)`` and pooled features ``(B, D)``."""
        tokens = self.img_enc.look(batch)
        features = tokens.mean(dim=1)
        return Output(self.classif(tokens if self.has_map else features), features)

    def score_and_map(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores, and the logits of the places between them; see :class:`PatchesClassifier`."""
        with recorded_grid(self.img_enc) as grids:
            tokens = self.img_enc(batch.image)
        scores = self.classif(tokens).float().softmax(dim=-1)[:, 1]
        maps = self.classif.places(tokens).unflatten(1, grids[0]).unsqueeze(1)
        return scores, pixel_maps(maps, self.img_enc, batch.image.shape[-2:], "bicubic").squeeze(1)

    def encoders(self) -> Iterable[Tower]:
        """The image encoder."""
        return (self.img_enc,)
