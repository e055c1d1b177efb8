"""The student: a network that sees only the image."""

from collections.abc import Iterable
from typing import Annotated

from torch import Tensor

from models.base import AnomalyModel, Output
from models.classifiers import CLASSIFIERS
from models.encoders import IMAGE_ENCODERS
from models.encoders.tower import Tower
from models.places import grid_of, pixel_maps
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
        grid: Rows and columns of these places.
    """

    needs_object = False
    only_looks = True

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
        self.grid = grid_of(self.img_enc, image_size) if self.has_map else (1, 1)
        self.feature_dim = self.img_enc.feature_dim
        self.classif = classif.build(CLASSIFIERS, self.feature_dim)

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)``, pooled features ``(B, D)``, and the logits of places and detectors."""
        tokens = self.img_enc.look(batch)
        features = tokens.mean(dim=1)
        if not self.has_map:
            return Output(self.classif(features), features)
        answer = self.classif.answer(tokens)
        places = answer.places.unflatten(1, self.grid)
        return Output(answer.logits, features, places=places, kinds=answer.kinds)

    def score_and_map(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores, and the logits of the places between them; see :class:`PatchesClassifier`."""
        output = self(batch)
        assert output.places is not None  # of a network with a map
        scores = output.logits.float().softmax(dim=-1)[:, 1]
        maps, size = output.places.unsqueeze(1), batch.image.shape[-2:]
        return scores, pixel_maps(maps, self.img_enc, size, "bicubic").squeeze(1)

    def encoders(self) -> Iterable[Tower]:
        """The image encoder."""
        return (self.img_enc,)
