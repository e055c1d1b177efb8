"""The image tower of a CLIP."""

from typing import Any

from torch import Tensor, nn

from models.encoders.clip import clip_model, image_statistics, is_resnet, is_vit
from models.encoders.tower import ImageEncoder, Train, as_tokens
from utils.errors import NothingToShowError


class ClipImageEncoder(ImageEncoder):
    """A CLIP's image tower: its last feature map, patch tokens, or the image embedding.

    Args:
        image_size: Height and width in pixels.
        pooled: ``False``: one vector per place (the last feature map of a ResNet, 2048-d for RN50;
            patch tokens of a ViT after its last norm). ``True``: the image embedding (1024-d for
            RN50, 512-d for ViT-B-16).
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        arch: Any architecture of open_clip (``RN50-quickgelu``, ``ViT-B-16-quickgelu`` ...), or
            ``demo-ViT``, ``tiny-RN``, ``tiny-ViT`` of this repository.
        pre_trained: A tag (``openai``, ``laion400m_e31`` ...), a file, ``demo`` (of ``demo-ViT``),
            or ``random``.
        sha256: SHA-256 of the file, or its first digits; not needed for tags.
        train: How much of the tower is trained: ``all``, ``last_stage``, or ``none``.

    Raises:
        ValueError: As :func:`models.encoders.clip.clip_model`.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        pooled: bool,
        load_weights: bool,
        *,
        arch: str,
        pre_trained: str,
        sha256: str = "",
        train: Train = "all",
    ) -> None:
        super().__init__(*image_statistics(arch, pre_trained))
        model = clip_model(
            arch, image_size, pre_trained=pre_trained, sha256=sha256, load_weights=load_weights
        )
        self.pooled = pooled
        self.visual: Any = model.visual
        if not pooled:
            _drop_head(self.visual)
        self.feature_dim = model.text.output_dim if pooled else _token_dim(self.visual)
        self.freeze_all_but(train, _last_stage(self.visual))

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, H, W)`` bytes to ``(B, N, D)``; see :class:`ImageEncoder`."""
        pixels = self.normalize(image)
        return self.visual(pixels).unsqueeze(1) if self.pooled else self._tokens(pixels)

    def _tokens(self, pixels: Tensor) -> Tensor:
        output = self.visual.forward_intermediates(
            pixels, indices=1, normalize_intermediates=True, intermediates_only=True
        )
        return as_tokens(output["image_intermediates"][-1])

    def cam_layer(self) -> nn.Module:
        """The last stage of a ResNet; of a ViT the first norm of its last block.

        The embedding of a ViT is computed from the class token. The patch tokens after the last
        block have no effect on it, and no gradient.
        """
        if is_resnet(self.visual):
            return self.visual.layer4
        if is_vit(self.visual):
            return self.visual.transformer.resblocks[-1].ln_1
        raise NothingToShowError("Grad-CAM is known for CLIP's ResNets and ViTs, not for this arch")

    def cam_reshape(self, output: Tensor) -> Tensor:
        """Drops the class token of a ViT and arranges the patches in rows and columns."""
        if is_resnet(self.visual):
            return output
        return output[:, 1:].transpose(1, 2).unflatten(2, self.visual.grid_size)


def _token_dim(visual: Any) -> int:
    if is_resnet(visual):
        return int(visual.layer4[-1].conv3.out_channels)
    if is_vit(visual):
        return int(visual.conv1.out_channels)
    return int(visual.trunk.num_features)


def _drop_head(visual: Any) -> None:
    """Removes what only the pooled embedding needs: it would be stored but never trained."""
    if is_resnet(visual):
        visual.attnpool = None
    elif is_vit(visual):
        visual.proj = None
    else:
        visual.head = nn.Identity()
        for name in {"head", "attn_pool"} & dict(visual.trunk.named_children()).keys():  # timm's
            setattr(visual.trunk, name, nn.Identity())


def _last_stage(visual: Any) -> list[nn.Module | nn.Parameter]:
    if is_resnet(visual):
        parts = [visual.layer4, visual.attnpool]
    elif is_vit(visual):
        parts = [visual.transformer.resblocks[-1], visual.ln_post, visual.proj]
    else:
        parts = []
    return [part for part in parts if part is not None]
