"""Ways to join image features and text features into one vector."""

from models.fusion.baf import BafFusion
from models.fusion.base import Fusion
from models.fusion.block import BlockFusion
from models.fusion.concat import ConcatFusion
from models.fusion.cross_attention import CrossAttentionFusion
from models.fusion.mlb import MlbFusion
from models.fusion.mutan import MutanFusion
from models.fusion.saf_released import SafReleasedFusion
from models.fusion.sum import SumFusion

FUSIONS: dict[str, type[Fusion]] = {
    "baf": BafFusion,
    "block": BlockFusion,
    "concat": ConcatFusion,
    "cross_attention": CrossAttentionFusion,
    "mlb": MlbFusion,
    "mutan": MutanFusion,
    "saf": CrossAttentionFusion,  # its published name
    "saf_released": SafReleasedFusion,
    "sum": SumFusion,
}
