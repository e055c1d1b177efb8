"""The released recipe's way of training, around the same networks as ours.

Pillow decodes every picture in every epoch, in four loader processes; the text tower runs over all
77 positions of every caption; the teacher runs at every step of its student, and beside the student
whenever that is tested; fp32, channels first.

Source:
    https://github.com/lilianoa/Multimodal-guide-AD
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from datasets.image import read_image
from datasets.record import Record
from jobs.build import build_learner, build_model, training_batches
from jobs.job import Job
from models.encoders.clip_text import ClipTextEncoder, read_words
from models.encoders.tower import ImageEncoder
from models.objectives.base import Learner, LiveTeacher
from utils.batch import Batch


class ReleasedImages(Dataset[dict[str, Any]]):
    """Pillow, Resize(bicubic), CenterCrop, ToTensor, every time a picture is asked for."""

    def __init__(
        self, root: Path, records: Sequence[Record], captions: Sequence[str], side: int
    ) -> None:
        self.root, self.records, self.captions = root, records, captions
        self.transform = v2.Compose(
            [
                v2.Resize(side, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
                v2.CenterCrop(side),
                v2.PILToTensor(),
            ]
        )

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One picture with its caption and label."""
        record = self.records[index]
        picture = read_image(self.root / record.path)
        pixels = self.transform(picture)
        return {"image": pixels, "label": record.label, "caption": self.captions[index]}


class ReleasedBatches:
    """Its loader: four processes, in the order in which ours sees the pictures."""

    num_workers = 4

    def __init__(self, images: ReleasedImages, order: Sequence[int], batch_size: int) -> None:
        self.images, self.order, self.batch_size = images, order, batch_size
        self.loader = DataLoader(images, batch_size, sampler=order, num_workers=self.num_workers)
        self.num_images = len(order)

    def __len__(self) -> int:
        """Steps."""
        return len(self.loader)

    def first(self, steps: int) -> "ReleasedBatches":
        """An epoch of the first batches alone: the processes decode ahead."""
        return ReleasedBatches(self.images, self.order[: steps * self.batch_size], self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches; the same whatever ``number``."""
        for found in self.loader:
            batch = Batch(found["image"], found["label"], [], [], found["caption"])
            yield Batch(**{**vars(batch), "guide": batch})


def whole_text(encoder: ClipTextEncoder, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """All 77 positions of every caption, however often it comes."""
    ids = encoder.tokenize(list(captions))
    words = read_words(encoder.text, ids)
    return words, torch.arange(ids.shape[1]) <= ids.argmax(dim=-1).unsqueeze(1)


def channels_first(encoder: ImageEncoder, image: Tensor) -> Tensor:
    """Normalised pixels in PyTorch's own layout, in which all that follows then runs."""
    pixels = image.contiguous().to(encoder.mean.dtype)
    return pixels.div(255).sub(encoder.mean).div(encoder.std)


def released(
    job: Job, dtype: torch.dtype = torch.float32
) -> tuple[Learner, LiveTeacher | None, ReleasedBatches]:
    """The network of a stage, the teacher of a student, and its batches.

    Args:
        job: The stage.
        dtype: Of the networks.
    """
    targets = LiveTeacher(build_model(job.run, "teacher")) if job.name == "student" else None
    learner = build_learner(job, targets)
    for network in [learner.model, *([targets.model] if targets else [])]:
        network.to(dtype)
        for encoder in network.encoders():
            if isinstance(encoder, ImageEncoder):
                encoder.normalize = partial(channels_first, encoder)  # type: ignore[method-assign]
        if network.reads_text:
            network.text_enc.forward = partial(whole_text, network.text_enc)  # type: ignore[union-attr,arg-type]
    records, side = job.data.train, job.stage.image.height_width[0]
    captions = [job.captions(record, 0) for record in records]
    images = ReleasedImages(job.data.root, records, captions, side)
    order = [index for _, index in training_batches(job).order]
    return learner, targets, ReleasedBatches(images, order, job.stage.engine.batch_size)
