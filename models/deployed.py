"""A student as it is deployed: the bytes of pictures in, score, probability and heat map out."""

import torch
from torch import Tensor, nn

from models.classifiers import LinearClassifier
from models.encoders.tower import as_tokens
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
        NothingToShowError: With ``maps``, unless average pooling and one linear layer follow the
            last feature map.
    """

    def __init__(self, student: Student, temperature: float, *, maps: bool) -> None:
        super().__init__()
        if maps and not isinstance(student.classif, LinearClassifier):
            raise NothingToShowError(
                "a class activation map needs classif: linear; leave --maps out, or use "
                "visualize.py, which computes gradients"
            )
        self.student, self.temperature, self.maps = student.eval(), temperature, maps
        if maps:
            student.img_enc.places(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))

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
        features = encoder(pixels)[:, 0] if places is None else as_tokens(places).mean(dim=1)
        score = head(features).float().softmax(dim=-1)[:, ANOMALOUS]
        # From the score, not from the logits: predict.py knows no more than the score either.
        logit = score.clamp(min=LEAST_SCORE).log() - (1 - score).clamp(min=LEAST_REST).log()
        outputs = score, (logit / self.temperature).sigmoid()
        if places is None:
            return outputs
        weight = head.main[-1].weight[ANOMALOUS] / (places.shape[-2] * places.shape[-1])
        heat = torch.einsum("bdhw,d->bhw", places, weight).clamp(min=0).unsqueeze(1)
        size = image.shape[1:3]
        return *outputs, pixel_maps(heat, encoder, size, "bicubic").clamp(min=0).squeeze(1)

    @property
    def output_names(self) -> list[str]:
        """What :meth:`forward` returns, in order."""
        return ["score", "probability", *(["map"] if self.maps else [])]
