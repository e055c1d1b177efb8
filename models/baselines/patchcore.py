"""PatchCore: how far the patches of a picture are from those of normal pictures."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from models.base import AnomalyModel, Output
from models.baselines.base import in_fp32
from models.encoders import IMAGE_ENCODERS
from models.encoders.tower import ImageEncoder, Tower
from models.places import pixel_maps, recorded_grid
from utils.batch import Batch
from utils.errors import UserError
from utils.memory import check_memory
from utils.ranges import Range, check_ranges
from utils.registry import Component

NEIGHBORS = 9  # b of equation 7
_TOP = 0.01  # share of the places that top_fraction looks at
_PROJECTED = 128  # features that the coreset is chosen by, as in the authors' code
_LARGEST = 2**21  # distances of one picture that are in memory at once
_NUM_CALIBRATION = 100  # pictures that the scale is fitted to
_DEVIATIONS = 3  # above the mean distance of normal pictures the score is 0.5
_LEAST_WIDTH = 0.01  # of the distance at score 0.5: pictures that are all the same have no spread


class PatchCore(AnomalyModel):
    r"""A memory bank of patch features of normal images; nothing is trained.

    An image's distance :math:`d` becomes the score :math:`(1 + x / \sqrt{1 + x^2}) / 2` with
    :math:`x = (d - c) / 2w`. It rises with the distance, and other than a sigmoid it never reaches
    1, so gross defects keep their order. The width w is the standard deviation of the distances of
    normal training images to the patches of the other images in the bank, and c is their mean plus
    3 w: a normal image at the mean has a score of 0.08. The map shows the distance of each place in
    the same way, with c and w of the hottest place of each image.

    Source:
        Roth et al. 2022, https://arxiv.org/abs/2106.08265: patch features (sec. 3.1), algorithm 1
        and equations 6 and 7; random projection as in sec. 3.2.
        Departure: levels are combined before neighbors are averaged, and by their mean or one after
        the other instead of adaptive pooling; a neighborhood ends at the border of the image, where
        the authors' code counts zeros; the greedy choice starts with one random patch; maps are
        interpolated bicubically without a Gaussian; scores are mapped to [0, 1].

    Args:
        image_size: Height and width in pixels.
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        img_enc: The image encoder, with its options; it must have ``train: none``.
        neighborhood: Side of the square of places whose features are averaged, odd; 1: none are.
            The paper's 3 is for ConvNets; patches of a vision transformer know their neighbors.
        coreset: Share of the patches that are kept. The time to choose them grows with the square
            of the number of images.
        score: The distance of an image: ``max``: that of its farthest patch, weighted by how alone
            its nearest neighbor in the bank is (equation 7); ``top_fraction``: the mean of the one
            percent of its patches that are the farthest.

    Attributes:
        bank: The patches, shape ``(M, D)``.
        scale: c and w of the score, then of the map, shape ``(2, 2)``.

    Raises:
        ValueError: If the encoder is to be trained, or the neighborhood is even.
    """

    has_map = True
    normal_only = True
    needs_object = False
    bank: Tensor
    scale: Tensor

    @check_ranges
    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        img_enc: Annotated[Component, IMAGE_ENCODERS],
        neighborhood: Annotated[int, Range(1, 15)] = 3,
        coreset: Annotated[float, Range(0, 1, "(]")] = 0.1,
        score: Literal["max", "top_fraction"] = "max",
    ) -> None:
        super().__init__()
        self.img_enc: ImageEncoder = img_enc.build(
            IMAGE_ENCODERS, image_size, pooled=False, load_weights=load_weights
        )
        if not self.img_enc.is_frozen:
            raise ValueError("nothing of it is trained; write img_enc.train: none")
        if neighborhood % 2 == 0:
            raise ValueError(f"neighborhood must be odd, got {neighborhood}")
        self.neighborhood, self.coreset, self.pool = neighborhood, coreset, POOLS[score]
        self.feature_dim = self.img_enc.feature_dim
        with torch.no_grad(), recorded_grid(self.img_enc) as grids:
            self.img_enc.eval()(torch.zeros(1, 3, *image_size, dtype=torch.uint8))
        rows, columns = grids[0]
        self.grid = rows, columns
        self.register_buffer("bank", torch.empty(0, self.feature_dim))
        self.register_buffer("scale", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)`` of the scores, and the mean of all patches, ``(B, D)``."""
        patches = self._patches(self.img_enc.look(batch))
        odds = self.judge(patches)[0].logit(eps=1e-7)
        return Output(torch.stack([torch.zeros_like(odds), odds], dim=1), patches.mean(dim=1))

    def score(self, batch: Batch) -> Tensor:
        """Scores in ``[0, 1]``, shape ``(B,)``."""
        return self.judge(self._patches(self.img_enc.look(batch)))[0]

    def score_and_map(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As :meth:`AnomalyModel.score_and_map`."""
        return self.score_pixels(batch.image)

    def score_pixels(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(B,)`` and maps ``(B, H, W)`` of RGB bytes ``(B, 3, H, W)``."""
        scores, distances = self.judge(self._patches(self.img_enc(image)))
        maps = distances.view(-1, 1, *self.grid)
        maps = pixel_maps(maps, self.img_enc, image.shape[-2:], "bicubic").squeeze(1)
        return scores, share_of(maps, self.scale[1])

    def judge(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(B,)`` of patches ``(B, N, D)``, and the distance of each, ``(B, N)``."""
        with in_fp32(patches):
            image, places = self._distances(patches, self.bank)
            return share_of(image, self.scale[0]), places

    def _patches(self, tokens: Tensor) -> Tensor:
        """Features of places ``(B, N, D)``, each averaged with its neighbors."""
        with in_fp32(tokens):
            return neighborhood_mean(tokens.float(), self.grid, self.neighborhood)

    def _distances(self, patches: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of images ``(B,)`` and of their places ``(B, N)``."""
        # int: in a graph a size is a tensor.
        distance, index = nearest(patches, bank, _LARGEST // int(patches.shape[1]))
        return self.pool(patches, bank, distance, index), distance

    @torch.no_grad()
    def fit(self, batches: Iterable[Batch], *, num_images: int, seed: int) -> None:
        """Fills the bank; see :meth:`AnomalyModel.fit`."""
        if num_images < 2:
            raise UserError(f"{num_images} normal training image; patchcore needs at least 2")
        self.eval()
        num_places, device = self.grid[0] * self.grid[1], self.bank.device
        shape = num_images, num_places, self.feature_dim
        check_memory(4 * shape[0] * shape[1] * shape[2], f"the patches of {num_images} images")
        patches = torch.empty(shape, device=device)
        row = 0
        for batch in batches:
            patches[row : row + len(batch)] = self._patches(self.img_enc.look(batch))
            row += len(batch)
        flat = patches.flatten(0, 1)
        count = min(max(round(self.coreset * len(flat)), NEIGHBORS), len(flat))
        random = torch.Generator().manual_seed(seed)
        first = int(torch.randint(len(flat), (1,), generator=random))
        chosen = farthest_points(project(flat, _PROJECTED, random), count, first)
        self.bank = flat[chosen]
        self.scale = self._scale(patches, chosen // num_places)

    def _scale(self, patches: Tensor, owner: Tensor) -> Tensor:
        """:attr:`scale`, from images ``(I, N, D)`` and the image of each patch of the bank."""
        rows = []
        for i in range(0, len(patches), -(-len(patches) // _NUM_CALIBRATION)):
            others = self.bank[owner != i]
            if len(others):
                image, places = self._distances(patches[i : i + 1], others)
                rows.append(torch.stack([image[0], places.max()]))
        distances = torch.stack(rows)
        mean, width = distances.mean(dim=0), distances.std(dim=0, correction=0)
        width = torch.maximum(width, _LEAST_WIDTH * mean).clamp(min=1e-6)
        return torch.stack([mean + _DEVIATIONS * width, width], dim=1)

    def encoders(self) -> Iterable[Tower]:
        """The image encoder, which is frozen."""
        return (self.img_enc,)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        """Makes room for the bank, whose length depends on the training images."""
        if (bank := state.get(f"{prefix}bank")) is not None:
            self.bank = self.bank.new_empty(bank.shape)
        super()._load_from_state_dict(state, prefix, *args)


def neighborhood_mean(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Each place's features averaged with those of the places around it.

    Args:
        tokens: Shape ``(B, N, D)``, row by row.
        grid: Rows and columns; N is their product.
        side: Of the square that is averaged, in places; of it, what lies in the image counts.
    """
    # -1: unflatten makes the size of the batch a constant in a graph.
    maps = tokens.transpose(1, 2).reshape(-1, tokens.shape[-1], *grid)
    maps = F.avg_pool2d(maps, side, 1, side // 2, count_include_pad=False)
    return maps.flatten(2).transpose(1, 2)


def nearest(patches: Tensor, bank: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Distances of patches from the nearest ones of the bank, and the indices of these, ``(B, N)``.

    Args:
        patches: Shape ``(B, N, D)``.
        bank: Shape ``(M, D)``.
        rows: How many of the bank are compared at once, which bounds the memory.
    """
    # Square distances, but for what is the same for the whole bank.
    parts = [
        (part.square().sum(dim=1) - 2 * patches @ part.T).min(dim=-1)
        for part in bank.split(max(rows, 1))
    ]
    best = torch.stack([part.values for part in parts]).min(dim=0)
    starts = range(0, len(bank), max(rows, 1))
    indices = torch.stack([part.indices + start for part, start in zip(parts, starts, strict=True)])
    index = indices.gather(0, best.indices.unsqueeze(0)).squeeze(0)
    # Again from the difference: the square of a small distance is lost in those of the lengths.
    return length_of(patches - bank[index]), index


def length_of(vectors: Tensor) -> Tensor:
    """Euclidean length over the last dimension."""
    return vectors.square().sum(dim=-1).sqrt()


def reweighted_max(patches: Tensor, bank: Tensor, distance: Tensor, index: Tensor) -> Tensor:
    r"""The farthest patch's distance, weighted by how alone its nearest one in the bank is.

    With the farthest patch :math:`m'`, its nearest one :math:`m^*` in the bank and the b = 9
    patches of the bank that are the nearest to that, :math:`N(m^*)`:
    :math:`s = (1 - \exp |m' - m^*| / \sum_{m \in N(m^*)} \exp |m' - m|) \, |m' - m^*|`.

    Source:
        Roth et al. 2022, equations 6 and 7; the paper does not say b, anomalib takes 9.

    Args:
        patches: Shape ``(B, N, D)``.
        bank: Shape ``(M, D)``.
        distance: Of each patch from the nearest one of the bank, shape ``(B, N)``.
        index: Which that is.

    Returns:
        Shape ``(B,)``.
    """
    farthest, place = distance.max(dim=1)
    row = place.view(-1, 1, 1).expand(-1, 1, patches.shape[-1])
    patch = patches.gather(1, row)  # (B, 1, D)
    found = bank[index.gather(1, place.unsqueeze(1)).squeeze(1)]  # (B, D)
    squares = bank.square().sum(dim=1) - 2 * found @ bank.T
    around = squares.topk(min(NEIGHBORS, len(bank)), dim=1, largest=False).indices
    away = length_of(patch - bank[around])  # (B, b)
    return (1 - (farthest - away.logsumexp(dim=1)).exp()) * farthest


def top_fraction(patches: Tensor, bank: Tensor, distance: Tensor, index: Tensor) -> Tensor:
    """The mean distance of the one percent of the patches that are the farthest, ``(B,)``.

    Args:
        patches: Unused, as are bank and index: those of :func:`reweighted_max`.
        bank: Unused.
        distance: Shape ``(B, N)``.
        index: Unused.
    """
    count = max(round(_TOP * int(distance.shape[1])), 1)
    return distance.topk(count, dim=1).values.mean(dim=1)


Pool = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
POOLS: dict[str, Pool] = {"max": reweighted_max, "top_fraction": top_fraction}


def share_of(distance: Tensor, scale: Tensor) -> Tensor:
    """Distances to numbers in ``[0, 1]``, see :class:`PatchCore`; ``scale``: c and w."""
    x = (distance - scale[0]) / (2 * scale[1])
    return (1 + x / (1 + x * x).sqrt()) / 2


def project(points: Tensor, dim: int, random: torch.Generator) -> Tensor:
    """Random projection of ``(N, D)``, which keeps distances roughly, to ``(N, dim)``.

    Source:
        Johnson and Lindenstrauss 1984. Points of no more than ``dim`` features stay as they are.
    """
    if points.shape[1] <= dim:
        return points
    matrix = torch.randn(points.shape[1], dim, generator=random) / dim**0.5
    return points @ matrix.to(points.device)


def farthest_points(points: Tensor, count: int, first: int) -> Tensor:
    """Indices of a greedy k-centre coreset: always the point farthest from all chosen ones.

    Source:
        Algorithm 1 of Roth et al. 2022; Sener and Savarese 2018, https://arxiv.org/abs/1708.00489.

    Args:
        points: Shape ``(N, D)``.
        count: How many, at most N.
        first: The first one.
    """
    points = points - points.mean(dim=0)  # small numbers, small rounding errors
    squares, chosen = points.square().sum(dim=1), torch.empty(count, dtype=torch.long)
    farthest = torch.full_like(squares, float("inf"))
    current = first
    for i in trange(count, desc="coreset", unit="patch", leave=False):
        chosen[i] = current
        distance = torch.addmv(squares, points, points[current], alpha=-2) + squares[current]
        torch.minimum(farthest, distance, out=farthest)
        farthest[current] = -float("inf")  # never twice
        current = int(farthest.argmax())
    return chosen.to(points.device)
