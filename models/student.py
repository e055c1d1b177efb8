"""The student: a network that sees only the image."""

from collections.abc import Iterable
from typing import Annotated

from torch import Tensor

from models.base import AnomalyModel, Output
from models.classifiers import CLASSIFIERS
from models.encoders import IMAGE_ENCODERS
from models.encoders.tower import Tower
from models.places import grid_of, pixel_maps, shifted_places
from utils.batch import Batch
from utils.errors import UserError
from utils.ranges import Range, check_ranges
from utils.registry import Component


class Student(AnomalyModel):
    """An image encoder and a classifier: the network that is used at inspection.

    Args:
        image_size: Height and width in pixels.
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        img_enc: The image encoder, with its options.
        classif: The classifier of the pooled features, or of all places, with its options.
        map_shifts: k: the heat map of a classifier of places is made from k * k copies of the
            image, each moved by a part of a place: it has k times as many places along each axis,
            and is smoothed by a third of a place. It takes k * k passes more. The score does not
            change.

    Attributes:
        has_map: Whether the classifier looks at places, so that their logits are a map.
        grid: Rows and columns of these places.
    """

    needs_object = False
    only_looks = True

    @check_ranges
    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        img_enc: Annotated[Component, IMAGE_ENCODERS],
        classif: Annotated[Component, CLASSIFIERS],
        map_shifts: Annotated[int, Range(1, 16)] = 1,
    ) -> None:
        super().__init__()
        self.has_map = CLASSIFIERS[classif.name].of_places
        if map_shifts > 1 and not self.has_map:
            raise UserError(
                f"{classif.path or 'classif'}: {classif.name} has no map of places; write "
                "map_shifts: 1, or classif: patches"
            )
        self.map_shifts = map_shifts
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
        return scores, self.map_of(batch.image, output.places)

    def map_of(self, image: Tensor, places: Tensor) -> Tensor:
        """The logits of places as a map of pixels, ``(B, H, W)``.

        Args:
            image: ``(B, 3, H, W)``; looked at again if :attr:`map_shifts` is more than 1.
            places: Its places' logits, ``(B, h, w)``.
        """
        if self.map_shifts > 1:
            places = shifted_places(self._places, image, self.grid, self.map_shifts)
        maps = pixel_maps(places.unsqueeze(1), self.img_enc, image.shape[-2:], "bicubic")
        return maps.squeeze(1)

    def _places(self, image: Tensor) -> Tensor:
        """The logits of the places of images, ``(B, h, w)``."""
        logits: Tensor = self.classif.places(self.img_enc(image))
        return logits.reshape(-1, *self.grid)  # unflatten would fix the batch size in a graph

    def encoders(self) -> Iterable[Tower]:
        """The image encoder."""
        return (self.img_enc,)
