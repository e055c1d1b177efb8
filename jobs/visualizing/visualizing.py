"""Shows where a student looks, and what the words of a teacher look at."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from datasets.captions import Captions
from datasets.image import read_view
from datasets.record import Record
from jobs.scoring import scores_and_maps
from jobs.session import Network, Session
from jobs.visualizing.localization import (
    Chosen,
    center_heat,
    localization_table,
    localization_text,
    locate,
    typical,
)
from jobs.visualizing.pictures import MOST_ROWS, Pair, Panel, Words, draw_heat_maps, draw_words
from models.student import Student
from models.teacher import Teacher
from models.word_maps import WordMaps, word_maps
from options.schema import Run
from utils.batch import UNKNOWN, Batch
from utils.checkpoint import write_bytes
from utils.console import say
from utils.device import Machine
from utils.errors import NothingToShowError, UserError
from utils.ranks import share

EXAMPLES = 4  # in a picture, at least: several images of an object where there are fewer objects
FINE = 480  # pixels that a picture in the picture has at least, in width
T = TypeVar("T")


def visualize(run: Run, *, out: Path | None = None, attention_out: Path | None = None) -> None:
    """Draws what each trained network of ``run`` looks at, into its folder.

    Args:
        run: The experiment; its stages must be trained.
        out: Where a copy of the student's heat maps goes.
        attention_out: Where a copy of the teacher's attention goes.

    Raises:
        UserError: If a stage is not trained, was trained with other options, or if what was asked
            for cannot be shown; and in several processes.
    """
    if share().world_size > 1:
        raise UserError("visualize.py: runs in one process; start it without torchrun")
    machine = Machine.choose(run.misc.device, "fp32")
    whole = Session.of(run, machine, "visualize.py")
    copies = {"student": out, "teacher": attention_out}
    for name, copy in copies.items():
        if copy and name not in run.stages:
            raise UserError(f"{copy}: {run.command} trains no {name}: nothing to draw there")
        if copy and run.dataset.per_object:
            raise UserError(f"{copy}: one model per object makes many pictures; take their folders")
    for session in whole.of_objects():
        for name in sorted(copies.keys() & session.run.stages.keys()):
            _draw(session, name, copies[name])
    if not copies.keys() & run.stages.keys():
        say(f"{run.command}: trains no student and no teacher: nothing to draw")


def _draw(session: Session, name: str, copy: Path | None) -> None:
    """Draws what there is to show of a trained network, or prints why there is nothing."""
    network = session.network(name)
    folder = session.run.exp.dir / name
    session.machine.place(network.model)
    try:
        if isinstance(network.model, Student) or network.model.has_map:
            picture = _draw_maps(session, network, folder)
        elif isinstance(network.model, Teacher):
            picture = _draw_teacher(session, network, network.model, folder)
        else:
            raise NothingToShowError(f"{network.title} does not look at images")
    except NothingToShowError as error:
        if copy:
            raise UserError(f"{folder}: {error}") from error
        say(f"{folder}: {error}")
        return
    if copy:
        write_bytes(picture, copy)


def _draw_maps(session: Session, network: Network, folder: Path) -> bytes:
    """Writes the picture, the table and its text: gradcam.* of a student; returns the picture."""
    model, records = network.model, session.splits["test"]
    name, kind, unit = "gradcam", "Grad-CAM", "heat, in units of the anomalous logit"
    if not isinstance(model, Student):
        name, kind, unit = "maps", "Anomaly maps", "anomaly map, in [0, 1]"
    elif model.has_map:
        kind = "Logits of the places"

    def look(batch: Batch) -> Iterable[tuple[float, np.ndarray]]:
        scores, heat = scores_and_maps(model, batch, session.machine)
        return zip(scores.tolist(), heat.numpy(), strict=True)

    rows = pd.DataFrame(
        {**_facts(record, mask, score), **locate(heat, mask, record.label)}
        for record, mask, (score, heat) in _each(session, network, records, look)
    )
    pairs = []
    for chosen in _chosen(rows)[:MOST_ROWS]:
        shown = [records[i] for i in chosen if i is not None]
        panels = [
            Panel(_photo(session, network, record), heat, mask, score, record.path)
            for record, mask, (score, heat) in _each(session, network, shown, look)
        ]
        normal = panels[1] if len(panels) > 1 else None
        pairs.append(Pair(_name(shown[0]), _defect(shown[0]), panels[0], normal))
    picture = draw_heat_maps(pairs, _heat_note(pairs, rows["object"].nunique()), unit)
    table = localization_table(rows)
    text = localization_text(table, f"{kind} of {network.title}: {unit}", session.about)
    csv = table.rename_axis("object").to_csv(float_format="%.4f")
    write_bytes(text.encode(), folder / f"{name}.md")
    write_bytes(csv.encode(), folder / f"{name}.csv")
    write_bytes(picture, folder / f"{name}.png")
    say(f"\n{text}\n{folder}: {name}.png, {name}.csv, {name}.md")
    return picture


def _draw_teacher(session: Session, network: Network, model: Teacher, folder: Path) -> bytes:
    """Writes attention.png; returns it."""
    records = session.splits["test"]
    captions = Captions(network.stage.captions.policy, 0.0, 0)

    def look(batch: Batch) -> Iterable[tuple[float, str, WordMaps]]:
        assert batch.caption is not None  # a teacher reads text
        scores, maps = word_maps(model, batch)
        return zip(scores.tolist(), batch.caption, maps, strict=True)

    rows = pd.DataFrame(
        {**_facts(record, mask, score), **_attention(record, mask, words)}
        for record, mask, (score, _, words) in _each(session, network, records, look, captions)
    )
    shown = [records[chosen.anomalous] for chosen in _chosen(rows)[:EXAMPLES]]
    blocks = []
    for record, mask, (score, caption, words) in _each(session, network, shown, look, captions):
        photo, maps = _photo(session, network, record), words.maps.cpu().numpy()
        panels = [Panel(photo, heat, mask, score, record.path) for heat in maps]
        blocks.append(Words(caption, words.words, panels))
    note = _word_note(rows)
    picture = draw_words(blocks, note)
    write_bytes(picture, folder / "attention.png")
    say(f"\n{note}\n{folder}: attention.png")
    return picture


def _chosen(rows: pd.DataFrame) -> list[Chosen]:
    chosen = typical(rows, -(-EXAMPLES // rows["object"].nunique()))
    if not chosen:
        raise NothingToShowError("there are no anomalous test images: there is nothing to show")
    return chosen


def _each(
    session: Session,
    network: Network,
    records: Sequence[Record],
    look: Callable[[Batch], Iterable[T]],
    captions: Captions | None = None,
) -> Iterator[tuple[Record, np.ndarray | None, T]]:
    """Each image with its mask, ``None`` where it is not known, and the result of ``look``."""
    batches = session.batches(network, records, captions=captions, with_masks=True)
    rest = iter(records)
    for batch in tqdm(batches, desc="drawing", unit="batch", leave=False):
        assert batch.mask is not None  # they were asked for
        masks = batch.mask.numpy()
        for mask, result in zip(masks, look(batch.to(session.machine.device)), strict=True):
            yield next(rest), None if UNKNOWN in mask else mask == 1, result


def _photo(session: Session, network: Network, record: Record) -> np.ndarray:
    """The picture as the network sees it, but finer: RGB bytes, ``(h, w, 3)``."""
    image = network.stage.image
    height, width = image.height_width
    times = -(-FINE // width)
    view = image.view.at((times * height, times * width))
    pixels = read_view(session.run.dataset.dir / record.path, view)
    return pixels.permute(1, 2, 0).numpy()


def _heat_note(pairs: Sequence[Pair], num_objects: int) -> str:
    shown = len({pair.title for pair in pairs})
    rank = "median score" if shown == len(pairs) else "evenly spaced ranks of the score"
    outline = " Green line: border of the mask."
    return (
        f"Per object the anomalous and the normal test image of {rank}."
        f"{outline if any(pair.anomalous.mask is not None for pair in pairs) else ''} Score: "
        "probability of “anomalous”."
        f"{f' The first {shown} of {num_objects} objects.' if shown < num_objects else ''}"
    )


def _facts(record: Record, mask: np.ndarray | None, score: float) -> dict[str, Any]:
    has_mask = mask is not None and bool(mask.any())
    facts = {"object": record.object, "label": record.label, "score": score}
    return {**facts, "has_mask": has_mask}


def _attention(record: Record, mask: np.ndarray | None, found: WordMaps) -> dict[str, float]:
    """Attention inside the mask, 1 being even: of words before and after the object's name."""
    if not record.label or mask is None or not mask.any():
        return {}
    inside = found.maps.cpu().numpy()[:, mask].mean(axis=1)
    text = "".join(found.words)
    name = _name(record).lower().replace(" ", "")
    known = text.find(name) + len(name) if name in text else 0
    ends = np.cumsum([len(word) for word in found.words])
    center = center_heat(*mask.shape)
    figures = {"center": float(center[mask].mean() / center.mean())}
    for when, words in (("before", ends <= known), ("after", ends > known)):
        if words.any():
            figures[when] = float(inside[words].mean())
    return figures


def _word_note(rows: pd.DataFrame) -> str:
    note = (
        "Oracle text: the teacher is told the truth. Number beside a word: its attention inside "
        "the mask (green line), 1 being even."
    )
    mean = rows.reindex(columns=["before", "after", "center"]).mean()
    if mean.isna().any():
        return note
    return (
        f"{note}\nMean over the {rows['center'].count()} anomalous test images with a mask: words "
        f"up to the object's name {mean['before']:.1f}, words after it {mean['after']:.1f}; a "
        f"Gaussian in the middle of the image {mean['center']:.1f}."
    )


def _name(record: Record) -> str:
    return record.object.replace("_", " ")


def _defect(record: Record) -> str:
    """As in "burnt, small scratches"."""
    parts = [part.strip().replace("_", " ") for part in record.defect.split(",")]
    return ", ".join(dict.fromkeys(part for part in parts if part))
