"""Training objectives: ``(output, batch) -> {"loss": scalar to minimize, other terms to log}``."""

from models.objectives.base import Objective
from models.objectives.cross_entropy import CrossEntropy
from models.objectives.distillation import Distillation
from models.objectives.segmentation import Segmentation

OBJECTIVES: dict[str, type[Objective]] = {
    "cross_entropy": CrossEntropy,
    "distillation": Distillation,
    "segmentation": Segmentation,
}
