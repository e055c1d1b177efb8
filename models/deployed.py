"""A network as it is deployed: the bytes of pictures in, score, probability and heat map out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import AnomalyModel
from models.baselines.patchcore import PatchCore
from models.classifiers import LinearClassifier
from models.encoders.tower import ImageEncoder, as_tokens
from models.gradcam import ANOMALOUS
from models.places import pixel_maps
from models.student import Student
from utils.errors import NothingToShowError

LEAST_SCORE, LEAST_REST = 2.0**-126, 2.0**-25  # of float32, and of utils.calibration.logits


class Deployed(nn.Module, ABC):
    """A network whose inputs and outputs are plain arrays; it becomes one graph in a file.

    Args:
        temperature: Of the calibration, see :mod:`utils.calibration`.
        maps: Whether there are heat maps, too.
    """

    def __init__(self, temperature: float, *, maps: bool) -> None:
        super().__init__()
        self.temperature, self.maps = temperature, maps

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Scores and probabilities of B pictures and, if asked for, their heat maps.

        Args:
            image: RGB bytes, shape ``(B, H, W, 3)``, uint8, at the size of the network's input.

        Returns:
            ``score`` ``(B,)`` as :meth:`AnomalyModel.score`, ``probability`` ``(B,)``, the
            calibrated one, and with ``maps`` ``map`` ``(B, H, W)``; all float32.
        """
        score, *maps = self.look(image.permute(0, 3, 1, 2), image.shape[1:3])
        # From the score, not from the logits: predict.py knows no more than the score either.
        logit = score.clamp(min=LEAST_SCORE).log() - (1 - score).clamp(min=LEAST_REST).log()
        return score, (logit / self.temperature).sigmoid(), *maps

    @abstractmethod
    def look(self, pixels: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
        """Scores and, if asked for, maps of size H and W from bytes ``(B, 3, H, W)``."""

    @property
    def output_names(self) -> list[str]:
        """What :meth:`forward` returns, in order."""
        return ["score", "probability", *(["map"] if self.maps else [])]


class DeployedStudent(Deployed):
    r"""A student.

    The heat of a place is what it adds to the anomalous logit, at least 0: with the feature map
    :math:`A` of N places and the weights :math:`w` of the anomalous logit,
    :math:`\mathrm{ReLU}(\sum_k w_k A_k / N)`. No gradient is needed.

    Source:
        Zhou et al. 2016, https://arxiv.org/abs/1512.04150, eq. 2. The same as
        :func:`models.gradcam.heat_maps` for such a network.

    Args:
        student: The network, in eval mode.
        temperature: As in :class:`Deployed`.
        maps: Likewise.

    Raises:
        NothingToShowError: With ``maps``, unless the classifier is one of places, or average
            pooling and one linear layer follow the last feature map.
    """

    def __init__(self, student: Student, temperature: float, *, maps: bool) -> None:
        super().__init__(temperature, maps=maps)
        if maps and not (student.has_map or isinstance(student.classif, LinearClassifier)):
            raise NothingToShowError(
                "a class activation map needs classif: linear or patches; leave --maps out, or use "
                "visualize.py, which computes gradients"
            )
        self.student = student.eval()
        if maps and type(student.img_enc).places is ImageEncoder.places:
            student.img_enc.places(torch.zeros(0))  # raises the error, with the reason

    def look(self, pixels: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
        """As :meth:`Deployed.look`."""
        encoder, head = self.student.img_enc, self.student.classif
        places = encoder.places(pixels) if self.maps else None
        tokens = encoder(pixels) if places is None else as_tokens(places)
        score = (
            head(tokens if self.student.has_map else tokens.mean(dim=1))
            .float()
            .softmax(dim=-1)[:, ANOMALOUS]
        )
        if places is None:
            return (score,)
        if self.student.has_map:
            maps = head.places(tokens).reshape(-1, *places.shape[-2:])
            return score, F.softplus(self.student.map_of(pixels, maps))
        weight = head.main[-1].weight[ANOMALOUS] / (places.shape[-2] * places.shape[-1])
        heat = torch.einsum("bdhw,d->bhw", places, weight).clamp(min=0).unsqueeze(1)
        return score, pixel_maps(heat, encoder, size, "bicubic").clamp(min=0).squeeze(1)


class DeployedPatchCore(Deployed):
    """A memory bank: a matrix product and a minimum, with the map of :class:`PatchCore`.

    Args:
        model: The network, in eval mode.
        temperature: As in :class:`Deployed`.
        maps: Likewise.
    """

    def __init__(self, model: PatchCore, temperature: float, *, maps: bool) -> None:
        super().__init__(temperature, maps=maps)
        self.model = model.eval()

    def look(self, pixels: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
        """As :meth:`Deployed.look`."""
        return self.model.score_pixels(pixels)[: 1 + self.maps]


DEPLOYED = {Student: DeployedStudent, PatchCore: DeployedPatchCore}


def deployed(model: AnomalyModel, temperature: float, *, maps: bool) -> Deployed | None:
    """A network as it is deployed; ``None`` if it cannot be.

    Raises:
        NothingToShowError: As :class:`DeployedStudent`.
    """
    kind = DEPLOYED.get(type(model))
    return None if kind is None else kind(model, temperature, maps=maps).eval()
