"""What the fusions with stacked attention between image tokens and word tokens have in common."""

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from models.fusion.base import Fused, Fusion, mean_over
from utils.errors import UserError

Direction = Literal["image_to_text", "text_to_image", "both"]


class StackedAttention(Fusion):
    """Layers of attention between two modalities, then the mean over the query tokens.

    In a layer the tokens of one modality are the queries; the tokens of the other one, the memory,
    are keys and values. Only the queries change from layer to layer.

    Args:
        image_dim: Features per image token.
        text_dim: Features per word token.
        dim: Features inside the module.
        out_dim: Features of the fused vector.
        layers: Number of stacked layers.
        direction: ``image_to_text``: image tokens are the queries, word tokens the keys;
            ``text_to_image``: the other way round; ``both``: side by side.
        make_layer: Makes a layer. It maps query tokens ``(B, N, dim)``, memory tokens
            ``(B, L, dim)`` and the mask of the memory ``(B, L)`` to new query tokens and the
            attention weights ``(B, heads, N, L)``.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int,
        out_dim: int,
        layers: int,
        direction: Direction,
        make_layer: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.from_image = nn.Sequential(nn.Linear(image_dim, dim), nn.LayerNorm(dim))
        self.from_text = nn.Sequential(nn.Linear(text_dim, dim), nn.LayerNorm(dim))
        streams = ["image_to_text", "text_to_image"] if direction == "both" else [direction]
        self.streams = nn.ModuleDict(
            {name: nn.ModuleList(make_layer() for _ in range(layers)) for name in streams}
        )
        self.norm = nn.LayerNorm(dim * len(streams))
        self.project = nn.Linear(dim * len(streams), out_dim)
        self.register_load_state_dict_pre_hook(_rename)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Fuses two sequences into one vector; see :meth:`Fusion.forward`.

        Returns:
            The fused vector ``(B, out_dim)`` and, per direction, the attention weights
            ``(B, layers, heads, query tokens, memory tokens)``; they sum to 1 over the last.

        Raises:
            UserError: If either side has a single token: the softmax over one key is always 1, so
                that the tokens would have no effect on it.
        """
        if image.shape[1] < 2 or text.shape[1] < 2:
            raise UserError(
                f"attention needs at least 2 image tokens and 2 text tokens, got {image.shape[1]} "
                f"and {text.shape[1]}; take larger images, or a fusion of pooled vectors"
            )
        places, words = self.from_image(image), self.from_text(text)
        everywhere = torch.ones(places.shape[:2], dtype=torch.bool, device=places.device)
        sides = {
            "image_to_text": (places, everywhere, words, text_mask),
            "text_to_image": (words, text_mask, places, everywhere),
        }
        pooled, attention = [], {}
        for name, layers in self.streams.items():
            x, x_mask, memory, memory_mask = sides[name]
            maps = []
            for layer in cast("nn.ModuleList", layers):
                x, weights = layer(x, memory, memory_mask)
                maps.append(weights)
            pooled.append(mean_over(x, x_mask))
            attention[name] = torch.stack(maps, dim=1)
        return Fused(self.project(self.norm(torch.cat(pooled, dim=-1))), attention)


def _rename(_module: nn.Module, state: dict[str, Any], *_: object) -> None:
    """Gives the norms in checkpoints of earlier versions their present names."""
    for old, new in ((".ask.", ".query_norm."), (".answer.", ".memory_norm.")):
        for name in [name for name in state if old in name]:
            state[name.replace(old, new)] = state.pop(name)


def feed_forward(dim: int) -> nn.Sequential:
    """A network that maps each token by itself: ``(B, N, dim)`` to the same shape."""
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
    )
