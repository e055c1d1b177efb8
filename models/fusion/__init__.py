"""Ways to join image features and text features into one vector."""

from models.fusion.base import Fusion
from models.fusion.concat import ConcatFusion
from models.fusion.cross_attention import CrossAttentionFusion
from models.fusion.saf_released import SafReleasedFusion

FUSIONS: dict[str, type[Fusion]] = {
    "concat": ConcatFusion,
    "cross_attention": CrossAttentionFusion,
    "saf": CrossAttentionFusion,  # the published name of the same idea
    "saf_released": SafReleasedFusion,
}
