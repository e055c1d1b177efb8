"""A CLIP vision transformer, step by step: patches, blocks, embedding."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoders.clip import is_vit

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer


def is_plain(visual: Any) -> bool:
    """Whether ``visual`` is CLIP's own vision transformer, pooled at its class token."""
    is_own = is_vit(visual) and visual.attn_pool is None
    return is_own and visual.pool_type == "tok" and len(visual.transformer.resblocks) > 1


def check_plain(visual: Any, arch: str) -> None:
    """Raises ValueError unless :func:`is_plain`."""
    if not is_plain(visual):
        raise ValueError(f"the image tower of {arch} is not CLIP's own ViT; choose another arch")


def embed(visual: "VisionTransformer", pixels: Tensor) -> Tensor:
    """Tokens before the first block: ``(B, 3, H, W)`` to ``(B, 1 + N, D)``, class token first."""
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
    start = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    x = torch.cat([start, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    return visual.ln_pre(x)


def run_blocks(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """``x`` after ``blocks``."""
    for block in blocks:
        x = run_block(block, x)
    return x


def run_block(block: Any, x: Tensor) -> Tensor:
    """``x``, of shape ``(B, L, D)``, after a block of open_clip's vision transformer."""
    return finish_block(block, x, *project_qkv(block.attn, block.ln_1(x)))


def last_block(block: Any, x: Tensor) -> Tensor:
    """The class token after ``block``, ``(B, L, D)`` to ``(B, D)``; it is the only query."""
    normed = block.ln_1(x)
    weight, bias, dim = block.attn.in_proj_weight, block.attn.in_proj_bias, x.shape[-1]
    query = linear(normed[:, :1], weight[:dim], bias[:dim])
    key, value = linear(normed, weight[dim:], bias[dim:]).chunk(2, dim=-1)
    return finish_block(block, x[:, :1], query, key, value)[:, 0]


def finish_block(block: Any, x: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The rest of ``block`` for the tokens ``x``, given queries, keys and values.

    Args:
        block: A block of open_clip's vision transformer.
        x: The tokens of the queries, shape ``(B, M, D)``.
        query: Shape ``(B, M, D)``.
        key: Shape ``(B, L, D)``.
        value: Shape ``(B, L, D)``.
    """
    x = x + block.ls_1(attend(query, key, value, block.attn))
    return x + block.ls_2(feed_forward(block.mlp, block.ln_2(x)))


def feed_forward(mlp: Any, x: Tensor) -> Tensor:
    """The two-layer network of a block, which maps each token by itself."""
    hidden = mlp.gelu(linear(x, mlp.c_fc.weight, mlp.c_fc.bias))
    return linear(hidden, mlp.c_proj.weight, mlp.c_proj.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x`` times a matrix ``(out, in)``, plus a bias; on CPUs as a convolution, which is faster.

    PyTorch computes fp32 products on CPUs with MKL. The same product as a convolution with kernel 1
    is computed by oneDNN, which was faster for all shapes tried on an AMD (docs/performance.md).
    """
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    pixels = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    product = F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return product.reshape(*x.shape[:-1], -1)


def embed_image(visual: "VisionTransformer", pixels: Tensor, *, ln_post: bool = True) -> Tensor:
    """The embedding of the whole image: ``(B, 3, H, W)`` to ``(B, D)``."""
    *blocks, last = visual.transformer.resblocks
    x = run_blocks(blocks, embed(visual, pixels))
    return project(visual, last_block(last, x), ln_post=ln_post)


def project(visual: "VisionTransformer", tokens: Tensor, *, ln_post: bool = True) -> Tensor:
    """Tokens ``(..., D)`` of the last block, projected into the space of the text embeddings."""
    normed = visual.ln_post(tokens) if ln_post else tokens
    return normed @ visual.proj.to(normed.dtype)


def grid_of(visual: "VisionTransformer") -> tuple[int, int]:
    """Number of rows and columns of patches."""
    rows, columns = visual.grid_size
    return int(rows), int(columns)


def value_attention(attention: nn.MultiheadAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Self-attention in two ways: V-V attention, and as the layer was trained.

    Source:
        The V-V attention of CLIP Surgery (https://arxiv.org/abs/2304.05653) as AnomalyCLIP uses it:
        q = k = v with the trained value and output projections.

    Args:
        attention: The layer.
        x: Shape ``(B, L, D)``.

    Returns:
        V-V attention and the layer's own, each of shape ``(B, L, D)``.
    """
    query, key, value = (split_heads(part, attention) for part in project_qkv(attention, x))
    both = (
        F.scaled_dot_product_attention(value, value, value),
        F.scaled_dot_product_attention(query, key, value),
    )
    by_value, own = (project_out(attention, join_heads(part)) for part in both)
    return by_value, own


def project_qkv(attention: nn.MultiheadAttention, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values of the tokens ``x``, each of the same shape as ``x``."""
    return linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)


def project_out(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """The layer's output projection of its joined heads ``(B, L, D)``."""
    return linear(x, attention.out_proj.weight, attention.out_proj.bias)


def split_heads(x: Tensor, attention: nn.MultiheadAttention) -> Tensor:
    """``(B, L, D)`` to ``(B, heads, L, D / heads)``."""
    return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """``(B, heads, L, D / heads)`` to ``(B, L, D)``."""
    return x.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor, attention: nn.MultiheadAttention) -> Tensor:
    """The layer's output ``(B, M, D)``; queries ``(B, M, D)``, keys and values ``(B, L, D)``."""
    q, k, v = (split_heads(part, attention) for part in (query, key, value))
    return project_out(attention, join_heads(F.scaled_dot_product_attention(q, k, v)))
