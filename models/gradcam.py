"""Where in the image a student's "anomalous" comes from: Grad-CAM, and nothing stretched."""

from dataclasses import replace

import numpy as np
import torch
from pytorch_grad_cam import HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from models.places import spread
from models.student import Student
from utils.batch import Batch

ANOMALOUS = 1


def heat_maps(student: Student, batch: Batch) -> tuple[Tensor, Tensor]:
    r"""Score and heat of each image; heat of one image may be compared with that of another.

    With :math:`A_k` the maps that the encoder's :meth:`~ImageEncoder.cam_layer` puts out and
    :math:`y` the anomalous logit, the heat is
    :math:`\mathrm{ReLU}(\sum_k (\partial y / \partial A_k)\, A_k)`, place by place. Where average
    pooling and one linear layer follow, as in ``ResNet`` with ``classif: linear``, this is what each
    place adds to the logit.

    Source:
        Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, eq. 1 and 2, with the gradient of
        each place instead of its mean over all places: HiResCAM, Draelos and Carin 2020,
        https://arxiv.org/abs/2011.08891. After average pooling both are the same; in a
        vision transformer the mean would make places hot that the class token does not look at.
        Computed by ``pytorch_grad_cam``.
        Departure: that library stretches every map to ``[0, 1]`` by itself, so that a normal image
        glows as an anomalous one does. Here the maps stay as the equation says, and lie where
        :func:`models.places.stride_and_first` says.

    Args:
        student: In any mode; it is in eval mode afterwards. Computed in float32.
        batch: B images on the student's device.

    Returns:
        Scores ``(B,)`` as :meth:`Student.score` and heat ``(B, H, W)``, both float32; the heat in
        units of the logit, at least 0, bicubic between the layer's places.

    Raises:
        NothingToShowError: As :meth:`ImageEncoder.cam_layer`.
    """
    encoder = student.img_enc
    cam = _Unscaled(_Logits(student, batch), [encoder.cam_layer()], encoder.cam_reshape)
    # Numbers instead of bytes carry a gradient, so that one flows through frozen layers, too.
    pixels = batch.image.float().requires_grad_()
    try:
        heat = torch.from_numpy(cam(pixels, [ClassifierOutputTarget(ANOMALOUS)] * len(batch)))
    finally:
        cam.activations_and_grads.release()
        student.zero_grad()
    heat = (
        spread(heat.unsqueeze(1), encoder, batch.image.shape[-2:], "bicubic")
        .clamp(min=0)
        .squeeze(1)
    )
    return cam.outputs.detach().softmax(dim=-1)[:, ANOMALOUS], heat.to(batch.image.device)


class _Unscaled(HiResCAM):  # type: ignore[misc]  # the library has no types
    """The library's map of one layer, before anything is stretched or resized."""

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
    """A student as the library wants it: pixels in, logits out."""

    def __init__(self, student: Student, batch: Batch) -> None:
        super().__init__()
        self.student, self.batch = student, batch

    def forward(self, image: Tensor) -> Tensor:
        return self.student(replace(self.batch, image=image)).logits
