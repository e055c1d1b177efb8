"""Images with their captions and masks, in batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.augment import Augmentation
from datasets.captions import Captions
from datasets.mask import Masks
from datasets.pixels import Pixels, ResidentPixels
from datasets.record import Record
from utils.batch import Batch
from utils.device import num_cores
from utils.errors import UserError
from utils.ranks import WHOLE, Share, local_world_size
from utils.seeding import generator

T = TypeVar("T")


@dataclass(frozen=True)
class Guide:
    """The teacher's input for the training images of its student."""

    pixels: Pixels
    captions: Captions


@dataclass
class _Sample:
    record: Record
    image: Tensor
    caption: str | None = None
    mask: Tensor | None = None
    guide_image: Tensor | None = None
    guide_caption: str | None = None


class ImageText(Dataset[_Sample | UserError]):
    """The inputs of a network: images, and captions if it reads text.

    Args:
        pixels: The pixels of each record.
        records: The images, in order.
        augmentation: Random changes, mosaics included; ``None``: none.
        captions: From record to caption; ``None`` for a network that reads no text. The records'
            texts are then removed here, unless there is a guide.
        guide: The teacher's input, if a teacher guides the training.
        masks: The mask of each record, if masks are needed.
    """

    def __init__(
        self,
        pixels: Pixels,
        records: Sequence[Record],
        *,
        augmentation: Augmentation | None = None,
        captions: Captions | None = None,
        guide: Guide | None = None,
        masks: Masks | None = None,
    ) -> None:
        reads_text = captions is not None or guide is not None
        self.records = [r if reads_text else r.without_text() for r in records]
        self.pixels, self.augmentation = pixels, augmentation
        self.captions, self.guide, self.masks = captions, guide, masks
        share = augmentation.options.mosaic if augmentation else 0.0
        self.mosaic = Mosaic(share, self.records) if share else None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> _Sample | UserError:
        """The image ``key = (epoch, index)``.

        If a file cannot be read, the error is returned, not raised: from a worker process it would
        arrive inside a traceback.
        """
        epoch, index = key
        record = self.records[index]
        try:
            seed = self.augmentation.seed(epoch, record.path) if self.augmentation else 0
            mask: Tensor | None
            if self.mosaic is not None and self.masks is not None:
                image, mask, label = self.mosaic(index, self.pixels, self.masks, seed)
                record = replace(record, label=label)
            else:
                image, mask = self.pixels(index), self.masks(index) if self.masks else None
            guide_image = self.guide.pixels(index) if self.guide else None
        except UserError as error:
            return error
        if self.augmentation is not None:
            image, mask = self.augmentation(image, seed, mask)
        sample = _Sample(record, image, mask=mask)
        if self.captions is not None:
            sample.caption = self.captions(record, epoch)
        if self.guide is not None:
            sample.guide_image = guide_image
            sample.guide_caption = self.guide.captions(record, epoch)
        return sample


class Mosaic:
    """Four random images of one object in place of one, each half as large, with their masks.

    Source:
        The mosaic of VAND (ByChelsea/VAND-APRIL-GAN, f13b8a6): a folder of the object's images is
        drawn first, good or with one kind of defect, then an image in it.

    Args:
        probability: Probability of a mosaic.
        records: The images.
    """

    def __init__(self, probability: float, records: Sequence[Record]) -> None:
        self.probability = probability
        self.objects = [record.object for record in records]
        self.labels = [record.label for record in records]
        self.folders: dict[str, dict[PurePosixPath, list[int]]] = {}
        for i, record in enumerate(records):
            folders = self.folders.setdefault(record.object, {})
            folders.setdefault(PurePosixPath(record.path).parent, []).append(i)

    def __call__(
        self, index: int, pixels: Pixels, masks: Masks, seed: int
    ) -> tuple[Tensor, Tensor, int]:
        """Image ``(3, H, W)``, mask ``(H, W)`` and label in the place of ``index``."""
        random = np.random.default_rng(seed)
        if random.random() >= self.probability:
            return pixels(index), masks(index), self.labels[index]
        from torchvision.transforms import v2

        folders = list(self.folders[self.objects[index]].values())
        drawn = [folders[int(i)] for i in random.integers(len(folders), size=4)]
        chosen = [folder[int(random.integers(len(folder)))] for folder in drawn]
        pictures = [pixels(i) for i in chosen]
        size = pictures[0].shape[-2:]  # that of all
        image = _quarters(pictures)
        mask = _quarters([masks(i).unsqueeze(0) for i in chosen])
        return (
            v2.functional.resize(image, size, antialias=True),
            v2.functional.resize(mask, size, interpolation=v2.InterpolationMode.NEAREST)[0],
            max(self.labels[i] for i in chosen),
        )


def _quarters(images: Sequence[Tensor]) -> Tensor:
    """Four ``(C, H, W)`` as one ``(C, 2 H, 2 W)``, row by row."""
    top, bottom = torch.cat(list(images[:2]), dim=2), torch.cat(list(images[2:]), dim=2)
    return torch.cat([top, bottom], dim=1)


def collate(samples: Sequence[_Sample | UserError]) -> Batch | UserError:
    """One batch of samples, or the first error among them."""
    good = [sample for sample in samples if isinstance(sample, _Sample)]
    if len(good) < len(samples):
        return next(sample for sample in samples if isinstance(sample, UserError))
    masks = _all(s.mask for s in good)
    batch = Batch(
        image=_stack([s.image for s in good]),
        label=torch.tensor([s.record.label for s in good]),
        object=[s.record.object for s in good],
        path=[s.record.path for s in good],
        caption=_all(s.caption for s in good),
        mask=None if masks is None else torch.stack(masks),
    )
    views = _all(s.guide_image for s in good)
    if views is None:
        return batch
    guide = Batch(
        image=_stack(views),
        label=batch.label,
        object=batch.object,
        path=batch.path,
        caption=_all(s.guide_caption for s in good),
    )
    return replace(batch, guide=guide)


def _stack(images: Sequence[Tensor]) -> Tensor:
    """``(B, 3, H, W)``, channels last in memory, as the images are."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def _all(values: Iterable[T | None]) -> list[T] | None:
    """The values as a list, or ``None`` if there are none."""
    return [value for value in values if value is not None] or None


def shuffled(labels: Tensor, random: torch.Generator) -> list[int]:
    """Every image once, in random order."""
    return torch.randperm(len(labels), generator=random).tolist()


def balanced(labels: Tensor, random: torch.Generator) -> list[int]:
    """The same number of images, drawn with replacement, both labels with equal probability."""
    share = torch.bincount(labels, minlength=2).double().reciprocal()[labels]
    return torch.multinomial(share, len(labels), replacement=True, generator=random).tolist()


SAMPLERS: dict[str, Callable[[Tensor, torch.Generator], list[int]]] = {
    "balanced": balanced,
    "shuffle": shuffled,
}


class _EpochSampler(Sampler[tuple[int, int]]):
    """Yields ``(epoch, index)``, so that worker processes know the epoch too.

    Process r of R gets every R-th image, from the r-th on. In training this is an equal share of
    each batch: all processes together see the batches that one process would see.
    """

    def __init__(
        self, labels: Tensor, sampler: str | None, seed: int, count: int, part: Share
    ) -> None:
        self.labels, self.sampler, self.seed = labels, sampler, seed
        self.count, self.part = count, part
        self.epoch = 0

    def __len__(self) -> int:
        return len(range(self.part.rank, self.count, self.part.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(len(self.labels)))
        if self.sampler is not None:
            random = generator(self.seed, "order", self.epoch)
            order = SAMPLERS[self.sampler](self.labels, random)
        own = order[: self.count][self.part.rank :: self.part.world_size]
        return ((self.epoch, index) for index in own)


class Batches:
    """The batches of each epoch; the same whenever an epoch is asked for.

    Attributes:
        num_images: Images per epoch, over all processes.

    Args:
        data: The images.
        batch_size: Images per batch, over all processes in training.
        sampler: Order of training images, a key of ``SAMPLERS``; ``None``: the order of the list,
            every image once, for evaluation. In training an incomplete last batch is left out:
            BatchNorm statistics of one or two images are poor.
        num_workers: Loader processes; 0: none, ``None``: chosen for the device.
        device: The device to which the batches will be moved.
        seed: The order depends on it and the epoch only.
        part: The share of this process in every batch.

    Raises:
        UserError: If the batch size is not a multiple of the number of processes.
    """

    def __init__(
        self,
        data: ImageText,
        batch_size: int,
        *,
        sampler: str | None,
        num_workers: int | None,
        device: torch.device,
        seed: int = 0,
        part: Share = WHOLE,
    ) -> None:
        self.num_images = len(data)
        if sampler is not None:
            batch_size = min(batch_size, len(data))
            if batch_size % part.world_size:
                raise UserError(
                    f"engine.batch_size: {batch_size} images cannot be shared out evenly among "
                    f"{part.world_size} processes; take a multiple of {part.world_size}"
                )
            self.num_images -= len(data) % batch_size
            batch_size //= part.world_size
        labels = torch.tensor([record.label for record in data.records])
        self.order = _EpochSampler(labels, sampler, seed, self.num_images, part)
        workers = _useful_workers(device) if num_workers is None else num_workers
        self.loader: DataLoader[_Sample | UserError] = DataLoader(
            data,
            batch_size,
            sampler=self.order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda" and not isinstance(data.pixels, ResidentPixels),
            collate_fn=collate,
            generator=generator(seed, "loader"),
        )

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.loader)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch ``number``.

        Raises:
            UserError: If a picture cannot be read.
        """
        self.order.epoch = number
        # The loader has its own generator, so the number of its processes does not change the
        # global one, which dropout uses. One number is drawn here from the global one, so that runs
        # give the same results as in earlier versions.
        torch.empty((), dtype=torch.int64).random_()
        for batch in self.loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch

    def __iter__(self) -> Iterator[Batch]:
        """The batches of epoch 0, for evaluation, where every epoch is the same."""
        return self.epoch(0)


def _useful_workers(device: torch.device) -> int:
    """The number of loader processes: none on a CPU, where they make training slower."""
    return 0 if device.type == "cpu" else min(num_cores() // local_world_size(), 16)
