"""A student as it is deployed: the bytes of pictures in, score, probability and heat map out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.classifiers import LinearClassifier
from models.encoders.tower import ImageEncoder, as_tokens
from models.gradcam import ANOMALOUS
from models.places import pixel_maps
from models.student import Student
from utils.errors import NothingToShowError

LEAST_SCORE, LEAST_REST = 2.0**-126, 2.0**-25  # of float32, and of utils.calibration.logits


class Deployed(nn.Module):
    """A student whose inputs and outputs are plain arrays; it becomes one graph in a file.

    Args:
        student: The network, in eval mode.
        temperature: Of the calibration, see :mod:`utils.calibration`.
        maps: Whether there are heat maps, too.

    Raises:
        NothingToShowError: With ``maps``, unless the classifier is one of places, or average
            pooling and one linear layer follow the last feature map.
    """

    def __init__(self, student: Student, temperature: float, *, maps: bool) -> None:
        super().__init__()
        if maps and not (student.has_map or isinstance(student.classif, LinearClassifier)):
            raise NothingToShowError(
                "a class activation map needs classif: linear or patches; leave --maps out, or use "
                "visualize.py, which computes gradients"
            )
        self.student, self.temperature, self.maps = student.eval(), temperature, maps
        if maps and type(student.img_enc).places is ImageEncoder.places:
            student.img_enc.places(torch.zeros(0))  # raises the error, with the reason

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        r"""Scores and probabilities of B pictures and, if asked for, their heat maps.

        The heat of a place is what it adds to the anomalous logit, at least 0: with the feature map
        :math:`A` of N places and the weights :math:`w` of the anomalous logit,
        :math:`\mathrm{ReLU}(\sum_k w_k A_k / N)`. No gradient is needed.

        Source:
            Zhou et al. 2016, https://arxiv.org/abs/1512.04150, eq. 2. The same as
            :func:`models.gradcam.heat_maps` for such a network.

        Args:
            image: RGB bytes, shape ``(B, H, W, 3)``, uint8, at the size of the network's input.

        Returns:
            ``score`` ``(B,)`` as :meth:`Student.score`, ``probability`` ``(B,)``, the calibrated
            one, and with ``maps`` ``map`` ``(B, H, W)``; all float32.
        """
        pixels, encoder, head = (
            image.permute(0, 3, 1, 2),
            self.student.img_enc,
            self.student.classif,
        )
        places = encoder.places(pixels) if self.maps else None
        tokens = encoder(pixels) if places is None else as_tokens(places)
        score = (
            head(tokens if self.student.has_map else tokens.mean(dim=1))
            .float()
            .softmax(dim=-1)[:, ANOMALOUS]
        )
        # From the score, not from the logits: predict.py knows no more than the score either.
        logit = score.clamp(min=LEAST_SCORE).log() - (1 - score).clamp(min=LEAST_REST).log()
        outputs = score, (logit / self.temperature).sigmoid()
        if places is None:
            return outputs
        size = image.shape[1:3]
        if self.student.has_map:
            maps = head.places(tokens).unflatten(1, places.shape[-2:]).unsqueeze(1)
            return *outputs, F.softplus(pixel_maps(maps, encoder, size, "bicubic")).squeeze(1)
        weight = head.main[-1].weight[ANOMALOUS] / (places.shape[-2] * places.shape[-1])
        heat = torch.einsum("bdhw,d->bhw", places, weight).clamp(min=0).unsqueeze(1)
        return *outputs, pixel_maps(heat, encoder, size, "bicubic").clamp(min=0).squeeze(1)

    @property
    def output_names(self) -> list[str]:
        """What :meth:`forward` returns, in order."""
        return ["score", "probability", *(["map"] if self.maps else [])]
