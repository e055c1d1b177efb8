"""Gives verdicts on pictures without labels, and writes them down as it goes."""

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, NoReturn

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datasets.captions import Captions
from datasets.image import read_view
from datasets.image_text import ImageText, collate
from datasets.pixels import DecodedPixels
from datasets.record import Record
from jobs.predicting.files import STANDARD_INPUT, find_all
from jobs.predicting.overlays import draw_overlay
from jobs.predicting.predictor import Predictor
from jobs.predicting.table import Prediction, PredictionTable
from utils.batch import Batch
from utils.checkpoint import write_bytes
from utils.console import say
from utils.device import num_cores
from utils.errors import Interrupted, UserError
from utils.ranks import gathered, is_main, joined, local_world_size, share

FINE = 480  # pixels that an overlay has at least, in width
_POLL = 1.0  # seconds between two looks into a watched folder
# Signs that break lines, and bytes that are no UTF-8: they are written as \n, \udcff ...
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for.

    Attributes:
        paths: Files, folders, patterns, ``-``.
        out: Folder of the table and the maps.
        object: Name of the object in all pictures; empty: see :meth:`Predictor.object_of`.
        maps: Whether a heat map of each picture is written.
        show: Whether verdict and heat map are printed, and no table is written.
        json: Whether each prediction is printed as a line of JSON.
        watch: Whether to wait for more pictures in the folders.
        batch_size: Pictures at a time.
        num_workers: Processes that decode; ``None``: as many as help.
    """

    paths: Sequence[str]
    out: Path
    object: str = ""
    maps: bool = False
    show: bool = False
    json: bool = False
    watch: bool = False
    batch_size: int = 32
    num_workers: int | None = None


def predict(predictor: Predictor, request: Request) -> int:
    """Predicts every picture that was not predicted before.

    Several processes share the batches; the main process writes them in order. The batches of a
    list are always the same, so that a run that was cut off ends with the same table.

    Returns:
        Number of pictures that could not be read.

    Raises:
        UserError: If a path names nothing, the table cannot be written or is another model's, or
            the model cannot do what was asked for.
    """
    _check(predictor, request)
    with joined(predictor.machine.device):
        if request.show:
            return _predict_all(predictor, request, _files(request), None)
        if not is_main():
            return _follow(predictor, request, None)
        with PredictionTable.opened(request.out, predictor.name) as table:
            return _follow(predictor, request, table)


def _check(predictor: Predictor, request: Request) -> None:
    if predictor.needs_object and not request.object and len(predictor.objects) != 1:
        known = f" (one of {', '.join(predictor.objects)})" if predictor.objects else ""
        raise UserError(
            f"{predictor.title}: has to be told what the pictures show: --object NAME{known}"
        )
    if (request.maps or request.show) and not predictor.has_map:
        raise UserError(f"{predictor.title}: has no heat map; leave out --maps and --show")
    if request.watch and STANDARD_INPUT in request.paths:
        raise UserError("--watch: waits for pictures in folders; standard input cannot be watched")
    if predictor.verdicts is None:
        _note(request, f"{predictor.title}: has no threshold: scores without verdicts; --threshold")


def _files(request: Request) -> list[str]:
    """The files that are named; the main process looks, for all."""
    return gathered(find_all(request.paths) if is_main() else [])[0]


def _follow(predictor: Predictor, request: Request, table: PredictionTable | None) -> int:
    files = _files(request)
    if not files and not request.watch:
        raise UserError(f"{', '.join(request.paths)}: there are no pictures")
    errors = _predict_all(predictor, request, files, table)
    if request.watch:
        _note(request, f"waiting for pictures in {', '.join(request.paths)}; Ctrl-C ends it")
        _watch(predictor, request, table)
    return errors


def _watch(predictor: Predictor, request: Request, table: PredictionTable | None) -> NoReturn:
    """Predicts pictures that arrive, once their size has stayed the same for a second."""
    sizes: dict[str, int] = {}
    while True:
        time.sleep(_POLL)
        new = [file for file in _files(request) if table is None or _shown(file) not in table.done]
        now = {file: Path(file).stat().st_size for file in new if Path(file).exists()}
        ready = [file for file, size in now.items() if sizes.get(file) == size]
        sizes = now
        ready = gathered(ready)[0]
        if ready:
            _predict_all(predictor, request, ready, table)


def _predict_all(
    predictor: Predictor, request: Request, files: Sequence[str], table: PredictionTable | None
) -> int:
    """Predicts those of the files that are not in the table; returns how many have an error."""
    done = gathered(set(table.done) if table else set())[0]
    size, part = request.batch_size, share()
    lists = [list(range(i, min(i + size, len(files)))) for i in range(0, len(files), size)]
    lists = [each for each in lists if any(_shown(files[i]) not in done for i in each)]
    steps = -(-len(lists) // part.world_size)
    mine = _predictions(predictor, request, files, lists[part.rank :: part.world_size])
    errors = 0
    bar = tqdm(range(steps), "predicting", unit="batch", leave=False, disable=not is_main())
    try:
        for _ in bar:
            rows = [row for rows in gathered(next(mine, [])) for row in rows]
            for row in table.add(rows) if table else rows if is_main() else ():
                _print(request, row)
                errors += bool(row.error)
    except KeyboardInterrupt:
        where = table.file if table else request.out
        raise Interrupted(f"{where}: pictures done: {len(table.done) if table else 0}") from None
    if table is None:
        return errors
    counts = table.counts([_shown(file) for file in files])
    parts = ", ".join(f"{name or 'without verdict'} {n}" for name, n in sorted(counts.items()))
    _note(request, f"{table.file}: pictures: {parts}")
    return counts.get("error", 0)


def _predictions(
    predictor: Predictor, request: Request, files: Sequence[str], lists: Sequence[list[int]]
) -> Iterator[list[Prediction]]:
    """The rows of each batch, with maps where they were asked for."""
    objects = [request.object or predictor.object_of(file) for file in files]
    records = [Record(path=f, object=o, label=0) for f, o in zip(files, objects, strict=True)]
    captions = Captions("object", 0.0, 0) if predictor.model.reads_text else None
    pixels = DecodedPixels(Path(), records, predictor.view)
    workers = request.num_workers
    if workers is None:  # starting them takes seconds
        workers = 0 if len(lists) < 4 else min(num_cores() // local_world_size(), 16)
    loader = DataLoader(
        _Pictures(ImageText(pixels, records, captions=captions)),
        batch_sampler=lists,
        num_workers=workers,
        collate_fn=_collate,
    )
    for indices, (batch, errors) in zip(lists, loader, strict=True):
        scores = dict(zip(batch.path, predictor.scores(batch), strict=True)) if batch else {}
        rows = [
            row_of(predictor, records[i], scores.get(files[i]), errors.get(i, "")) for i in indices
        ]
        if batch is not None and (request.maps or request.show):
            _write_maps(predictor, request, batch, {row.path: row for row in rows})
        yield rows


class _Pictures(Dataset[tuple[int, Any]]):
    """Pictures by their number; one that cannot be read is the error it causes."""

    def __init__(self, images: ImageText) -> None:
        self.images = images

    def __getitem__(self, index: int) -> tuple[int, Any]:
        try:
            return index, self.images[0, index]
        except Exception as error:  # noqa: BLE001 - decoders raise any type for damaged files
            path = self.images.records[index].path
            return index, UserError(f"{path}: cannot be read as a picture ({error!r})")


def _collate(
    samples: Sequence[tuple[int, Any]],
) -> tuple[Batch | None, dict[int, str]]:
    """The pictures that could be read, and the errors of the others by their number."""
    errors = {index: str(one) for index, one in samples if isinstance(one, UserError)}
    good = [one for _, one in samples if not isinstance(one, UserError)]
    batch = collate(good) if good else None
    assert not isinstance(batch, UserError)  # there is none among the good ones
    return batch, errors


def row_of(
    predictor: Predictor, record: Record, score: float | None, error: str = ""
) -> Prediction:
    """What comes out for one picture; ``score`` is ``None`` if it could not be read: ``error``."""
    path, name, verdicts = _shown(record.path), record.object, predictor.verdicts
    if score is not None and not np.isfinite(score):
        score, error = None, f"the score is {score}; use precision fp32"
    if score is None:
        return Prediction(path, object=name, model=predictor.name, error=_shown(error))
    score = float(score)
    if verdicts is None:
        return Prediction(path, score, score, object=name, model=predictor.name)
    return Prediction(
        path,
        score,
        float(verdicts.probability([score])[0]),
        verdicts.threshold_of(name).value,
        verdicts.verdict(score, name),
        name,
        predictor.name,
    )


def _shown(text: str) -> str:
    """Text on one line of UTF-8."""
    return _UNWRITABLE.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def _write_maps(
    predictor: Predictor, request: Request, batch: Batch, rows: dict[str, Prediction]
) -> None:
    height, width = predictor.image.height_width
    times = -(-FINE // width)
    view = predictor.view.at((times * height, times * width))
    for path, heat in zip(batch.path, predictor.maps(batch), strict=True):
        row = rows[_shown(path)]
        photo = read_view(Path(path), view).permute(1, 2, 0).numpy()
        title = f"{PurePath(row.path).name}: {_verdict(row)}"
        png = draw_overlay(photo, heat.numpy(), title, is_share=predictor.has_shares)
        write_bytes(png, map_file(request.out, row.path))


def map_file(out: Path, path: str) -> Path:
    """Where the heat map of a picture is: ``out/maps/`` and its path; ``..`` as ``__``."""
    parts = ["__" if part == ".." else part for part in PurePath(path).parts if part != "/"]
    return out.joinpath("maps", *parts[:-1], f"{parts[-1]}.png")


def _verdict(row: Prediction) -> str:
    verdict = f"{row.verdict}, " if row.verdict else ""
    threshold = "" if row.threshold is None else f", threshold {row.threshold:.3g}"
    return f"{verdict}probability {row.probability:.3f} (score {row.score:.3g}{threshold})"


def _print(request: Request, row: Prediction) -> None:
    """Prints a row where it was asked for."""
    if request.json:
        cells = {name: None if value == "" else value for name, value in asdict(row).items()}
        tqdm.write(json.dumps(cells), file=sys.stdout)
        sys.stdout.flush()
    elif request.show:
        where = row.error or f"{_verdict(row)}: {map_file(request.out, row.path)}"
        say(f"{row.path}: {where}")


def _note(request: Request, text: str) -> None:
    """Prints a line; beside JSON to standard error."""
    if request.json and is_main():
        tqdm.write(text, file=sys.stderr)
    elif not request.json:
        say(text)
