"""Grad-CAM heat maps of a student: where in the image its "anomalous" comes from."""

from dataclasses import replace

import numpy as np
import torch
from pytorch_grad_cam import HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

from models.places import pixel_maps
from models.student import Student
from utils.batch import Batch

ANOMALOUS = 1


def heat_maps(student: Student, batch: Batch) -> tuple[Tensor, Tensor]:
    r"""Score and heat map of each image; the heat of different images can be compared.

    With :math:`A_k` the output maps of the encoder's :meth:`~ImageEncoder.cam_layer` and :math:`y`
    the anomalous logit, the heat is
    :math:`\mathrm{ReLU}(\sum_k (\partial y / \partial A_k)\, A_k)`, place by place. If average
    pooling and one linear layer follow, as in a ResNet with ``classif: linear``, the heat of a
    place is what it adds to the logit.

    With ``classif: patches`` the heat is :math:`\log(1 + \exp s)` of the logits s of the places.

    Source:
        Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, eq. 1 and 2, with the gradient of
        each place instead of its mean over all places: HiResCAM, Draelos and Carin 2020,
        https://arxiv.org/abs/2011.08891. After average pooling both are the same; in a vision
        transformer the mean makes places hot that do not count. Computed by ``pytorch_grad_cam``.
        Departure: the library scales each map to ``[0, 1]``, so that a normal image looks as hot
        as an anomalous one. Here the maps are those of the equation, resized by
        :func:`models.places.pixel_maps`.

    Args:
        student: In any mode; afterwards it is in eval mode. Computed in float32.
        batch: B images on the student's device.

    Returns:
        Scores ``(B,)`` as :meth:`Student.score` and heat ``(B, H, W)``, both float32; the heat in
        units of the logit, at least 0, interpolated bicubically between the places of the layer.

    Raises:
        NothingToShowError: As :meth:`ImageEncoder.cam_layer`.
    """
    if student.has_map:
        with torch.no_grad():
            scores, maps = student.eval().score_and_map(batch)
        return scores, F.softplus(maps)
    encoder = student.img_enc
    cam = _Unscaled(_Logits(student, batch), [encoder.cam_layer()], encoder.cam_reshape)
    # Floats can require a gradient, so that it also flows through frozen layers.
    pixels = batch.image.float().requires_grad_()
    try:
        heat = torch.from_numpy(cam(pixels, [ClassifierOutputTarget(ANOMALOUS)] * len(batch)))
    finally:
        cam.activations_and_grads.release()
        student.zero_grad()
    heat = (
        pixel_maps(heat.unsqueeze(1), encoder, batch.image.shape[-2:], "bicubic")
        .clamp(min=0)
        .squeeze(1)
    )
    return cam.outputs.detach().softmax(dim=-1)[:, ANOMALOUS], heat.to(batch.image.device)


class _Unscaled(HiResCAM):  # type: ignore[misc]  # the library has no types
    """The library's map of one layer, without scaling and resizing."""

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: list[nn.Module], eigen_smooth: bool
    ) -> list[np.ndarray]:
        """One map per image at the layer's own size, ``(B, h, w)``."""
        (layer,), recorded = self.target_layers, self.activations_and_grads
        (activations,), (gradients,) = recorded.activations, recorded.gradients
        cam = self.get_cam_image(
            input_tensor, layer, targets, activations.numpy(), gradients.numpy(), eigen_smooth
        )
        return [np.maximum(cam, 0)]

    def aggregate_multi_layers(self, cam_per_target_layer: list[np.ndarray]) -> np.ndarray:
        """The map of the only layer."""
        return cam_per_target_layer[0]


class _Logits(nn.Module):
    """A student with the interface that the library expects: pixels in, logits out."""

    def __init__(self, student: Student, batch: Batch) -> None:
        super().__init__()
        self.student, self.batch = student, batch

    def forward(self, image: Tensor) -> Tensor:
        return self.student(replace(self.batch, image=image)).logits
