"""Every method that can be trained or put in a table, built with ``(image_size, load_weights)``."""

from models.base import AnomalyModel
from models.student import Student
from models.teacher import Teacher
from models.textonly import TextOnly

METHODS: dict[str, type[AnomalyModel]] = {
    "student": Student,
    "teacher": Teacher,
    "textonly": TextOnly,
}
