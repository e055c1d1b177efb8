"""The features of a frozen encoder: computed once for each image, and read from then on."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from datasets.augment import Augment
from datasets.pixels import DecodedPixels, ImageStore, content_parts
from datasets.record import Record
from jobs.build import evaluation_batches
from models.base import AnomalyModel
from models.encoders.tower import ImageEncoder, dry_run
from options.schema import Stage
from utils.checkpoint import state_hash
from utils.console import say
from utils.device import Machine
from utils.ranks import WHOLE, is_main
from utils.store import Entry

_AT_ONCE = 8  # images; more gain nothing on a CPU, and a large image takes seconds
_FORMAT = 1  # raise it when the same features give other bytes


@dataclass(frozen=True)
class TokenFile:
    r"""Features in a file, one row per image.

    A row is the largest size :math:`s` of its features as fp32, the features divided by it as
    fp16, and a CRC-32. Rounding changes a feature by at most :math:`2^{-11}` (0.05 %) of itself, or
    :math:`2^{-25} s` where that is more.

    Attributes:
        entry: The file.
        rows: Row of each image, by its path.
        shape: N and D of an image.
        encode: Computes the features of an image again, ``(N, D)``, where they are damaged.
        checked: The rows whose CRC-32 was right when they were read for the first time.
    """

    entry: Entry
    rows: Mapping[str, int]
    shape: tuple[int, int]
    encode: Callable[[str], Tensor]
    checked: set[int] = field(default_factory=set)

    def __call__(self, paths: Sequence[str]) -> Tensor | None:
        """Features ``(B, N, D)``, fp32; ``None`` if an image is not one of those of the file."""
        if not all(path in self.rows for path in paths):
            return None
        features = torch.empty(len(paths), *self.shape)
        row = np.empty(row_bytes(self.shape), dtype=np.uint8)
        for values, path in zip(features, paths, strict=True):
            if self._read(self.rows[path], row):
                # A tenth of the time that numpy takes.
                halves = torch.from_numpy(row[4:-4].view(np.float16).reshape(self.shape))
                values.copy_(halves).mul_(float(row[:4].view(np.float32)[0]))
            else:
                values.copy_(self.encode(path))
        return features

    def _read(self, number: int, row: NDArray[np.uint8]) -> bool:
        """Reads a row of the file; whether it is whole and right."""
        try:
            # Not mapped into memory: a file that is cut off meanwhile would kill the process.
            with self.entry.file.open("rb", buffering=0) as file:
                file.seek(number * len(row))
                if file.readinto(row.data) < len(row):
                    return False
        except OSError:  # another process has removed it
            return False
        if number not in self.checked:
            if zlib.crc32(row[:-4].data) != int(row[-4:].view(np.uint32)[0]):
                return False
            self.checked.add(number)
        return True


def row_bytes(shape: tuple[int, int]) -> int:
    """Bytes of an image in a :class:`TokenFile`."""
    return 4 + 2 * shape[0] * shape[1] + 4


def token_row(features: Tensor) -> bytes:
    """Features ``(N, D)`` as a row of a :class:`TokenFile`."""
    largest = features.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    halves = (features / largest).half()
    content = largest.numpy().tobytes() + halves.numpy().tobytes()
    return content + zlib.crc32(content).to_bytes(4, "little")


def ask_encoders(
    model: AnomalyModel,
    stage: Stage,
    store: ImageStore,
    records: Sequence[Record],
    machine: Machine,
) -> ImageStore:
    """Computes once what the frozen image encoder of ``model`` makes of each image.

    From then on the encoder takes it from a file beside the decoded images, whose name is made of
    everything that it depends on: weights and options of the encoder, the pictures, its view of
    them, device and precision. An encoder that is trained, or sees its images with random changes,
    is left as it is; so is everything with ``dataset.cache: null``.

    Args:
        model: The network.
        stage: Its options.
        store: The pixels of the images.
        records: The images; all of the list of ``store`` that they are a part of are encoded.
        machine: Device and precision.

    Returns:
        ``store``; without the pixels of ``records`` if the network no longer looks at them.
    """
    if stage.augment != Augment() or store.store.folder is None:
        return store
    records = store.whole(records)
    encoders = [encoder for encoder in model.encoders() if isinstance(encoder, ImageEncoder)]
    for encoder in encoders:
        if encoder.is_frozen:
            encoder.kept = _token_file(encoder, stage, store, records, machine)
    if not model.only_looks or not all(encoder.is_frozen for encoder in encoders):
        return store
    return replace(store, unseen=frozenset(record.path for record in records))


@torch.no_grad()
def _token_file(
    encoder: ImageEncoder,
    stage: Stage,
    store: ImageStore,
    records: Sequence[Record],
    machine: Machine,
) -> TokenFile:
    digest_of = dict(zip([r.path for r in records], store.digests(records), strict=True))
    record_of = {digest_of[record.path]: record for record in records}
    digests = sorted(record_of)  # neither names nor the validation images matter

    def encode(image: Tensor) -> Tensor:
        with torch.no_grad(), machine.autocast():
            features: Tensor = encoder.eval()(image.to(machine.device))
        return features.float().cpu()

    def encode_again(path: str) -> Tensor:
        record = record_of[digest_of[path]]
        return encode(DecodedPixels(store.root, [record], stage.image.view)(0).unsqueeze(0))[0]

    def write(out: BinaryIO) -> None:
        in_order = [record_of[digest] for digest in digests]
        batches = evaluation_batches(store, stage, in_order, machine.device, part=WHOLE)
        with tqdm(
            total=len(digests), desc="encoding", unit="img", leave=False, disable=not is_main()
        ) as bar:
            for batch in batches:
                for some in batch.image.split(_AT_ONCE):
                    for features in encode(some):
                        out.write(token_row(features))
                    bar.update(len(some))

    image = torch.zeros(1, 3, *stage.image.height_width, dtype=torch.uint8)
    _, places, dim = dry_run(encoder.eval(), image.to(machine.device)).shape
    shape = places, dim
    options = stage.model.options["img_enc"]
    kind = f"{_FORMAT} {options.name} {options.options} {shape}"
    parts = [kind, state_hash(encoder), str(machine)]
    entry = store.store.open(
        [*parts, *content_parts(digests, stage.image.view)],
        "tokens",
        len(digests) * row_bytes(shape),
        write,
        f"features of {len(digests)} images of {store.root}",
    )
    say(f"{options.path}: is frozen: its features of {len(digests)} images are kept")
    row_of = {digest: row for row, digest in enumerate(digests)}
    rows = {path: row_of[digest] for path, digest in digest_of.items()}
    return TokenFile(entry, rows, shape, encode_again)
