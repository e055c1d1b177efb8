"""All methods, each built with ``(image_size, load_weights, *, options)``."""

from models.base import AnomalyModel
from models.baselines.anomalyclip import AnomalyClip
from models.baselines.clip import Clip
from models.baselines.patchcore import PatchCore
from models.baselines.vand import Vand
from models.baselines.winclip import WinClip
from models.student import Student
from models.teacher import Teacher
from models.textonly import TextOnly

METHODS: dict[str, type[AnomalyModel]] = {
    "anomalyclip": AnomalyClip,
    "clip": Clip,
    "patchcore": PatchCore,
    "student": Student,
    "teacher": Teacher,
    "textonly": TextOnly,
    "vand": Vand,
    "winclip": WinClip,
}
