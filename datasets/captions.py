"""Captions of training images: privileged information that does not exist at inspection."""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch

from datasets.record import Record
from utils.seeding import derive, generator

Policy = Literal["label", "sentence", "object", "shuffled"]

_NORMAL = "normal"
_TEMPLATES = (
    "a photo of {} {}",
    "a close-up photo of {} {}",
    "a cropped photo of {} {}",
    "an inspection image of {} {}",
    "an image of {} {}",
)
# Names of defects that are adjectives, as MVTec's "misplaced" and "broken_large". Those of VisA
# ("burnt", "bent") stay behind "with", as in all runs before.
_ADJECTIVE = re.compile(
    r"(?i)[a-z]{3,}ed|broken|torn|worn|defective|faulty|dirty|loose|large|small|slightly|badly"
)
_GOOD = ("without defect", "without any flaw", "in perfect condition", "with no damage")


class Captions:
    """Turns records into captions.

    Args:
        policy: ``label``: the released behavior, ``normal`` or the defect string. ``sentence``: an
            English sentence about the record; its wording is drawn per image and epoch.
            ``object``: "a photo of a fryum", which does not tell the label. ``shuffled``: as
            ``sentence``, with the defect that ``texts`` has for the image.
        dropout: Probability of the ``object`` caption instead, so that a teacher needs the image.
        seed: Every random choice depends on it, the epoch and the image only.
        texts: Path of an image to the text about its defect that replaces its own.
    """

    def __init__(
        self, policy: Policy, dropout: float, seed: int, texts: Mapping[str, str] | None = None
    ) -> None:
        self.write, self.policy = POLICIES[policy], policy
        self.dropout, self.seed = dropout, seed
        self.texts = texts or {}

    def __call__(self, record: Record, epoch: int) -> str:
        """The caption of ``record`` in ``epoch``."""
        draw = random.Random(derive(self.seed, "caption", epoch, record.path))  # noqa: S311
        if draw.random() < self.dropout:
            return object_caption(record, draw)
        return self.write(self._retold(record), draw)

    def names(self, record: Record) -> list[str]:
        """The names of defects that the caption of an anomalous image has, without ``dropout``.

        The policy ``label`` has one name, the whole text; ``object`` has none.
        """
        return NAMES.get(self.policy, _defects)(self._retold(record)) if record.label else []

    def _retold(self, record: Record) -> Record:
        return replace(record, defect=self.texts.get(record.path, record.defect))


def label_caption(record: Record, draw: random.Random) -> str:
    """``normal``, or the defect string, lower-case and without punctuation.

    Source:
        The released ``datasets/dataset.py``: first 48 words.
    """
    kept = (c if c.isalnum() or c.isspace() else " " for c in record.defect.lower())
    return " ".join("".join(kept).split()[:48])


def sentence_caption(record: Record, draw: random.Random) -> str:
    """As in "a photo of a fryum with corner or edge breakage and small scratches".

    A defect that is an adjective stands before the object: "a photo of a misplaced transistor".
    """
    if not record.label:
        state = draw.choice(_GOOD)
        return draw.choice(_TEMPLATES).format(_with_article(record.object), state)
    parts = record.defects
    adjectives = [part for part in parts if all(map(_ADJECTIVE.fullmatch, part.split()))]
    nouns = [part for part in parts if part not in adjectives]
    state = f"with {_enumerate(nouns)}" if nouns or not adjectives else ""
    shown = " ".join([*adjectives[:1], record.object]) if adjectives else record.object
    return draw.choice(_TEMPLATES).format(_with_article(shown), state).rstrip()


def object_caption(record: Record, draw: random.Random) -> str:
    """As in "a photo of a fryum": no information about the label."""
    return f"a photo of {_with_article(record.object)}"


def _defects(record: Record) -> list[str]:
    return record.defects


def _whole_text(record: Record) -> list[str]:
    text = label_caption(record, random.Random())  # noqa: S311  it draws nothing
    return [text] if record.defects else []


def _nothing(_record: Record) -> list[str]:
    return []


NAMES: dict[Policy, Callable[[Record], list[str]]] = {"label": _whole_text, "object": _nothing}
POLICIES = {
    "label": label_caption,
    "sentence": sentence_caption,
    "object": object_caption,
    "shuffled": sentence_caption,
}


def shuffled_texts(records: Iterable[Record], seed: int) -> dict[str, str]:
    """The defect texts of the anomalous images, shuffled among those of one object, by path.

    A control: the caption still tells the label, but has the defect of another image.
    """
    anomalous = defaultdict(list)
    for record in sorted(records, key=lambda record: record.path):
        if record.label:
            anomalous[record.object].append(record)
    texts: dict[str, str] = {}
    for name, images in anomalous.items():
        order = torch.randperm(len(images), generator=generator(seed, "shuffled", name)).tolist()
        texts |= {images[i].path: images[j].defect for i, j in enumerate(order)}
    return texts


def says_only_the_label(records: Iterable[Record]) -> bool:
    """Whether all anomalous images of an object have the same text: its label in other words."""
    texts = defaultdict(set)
    for record in records:
        if record.label:
            texts[record.object].add(record.defect)
    return all(len(defects) == 1 for defects in texts.values())


def _enumerate(parts: Sequence[str]) -> str:
    """As in "burnt and small scratches"; three and more with commas."""
    *first, last = parts or ["a defect"]
    return f"{', '.join(first)} and {last}" if first else last


def _with_article(name: str) -> str:
    noun = name.replace("_", " ").strip()
    if noun.endswith("s") and not noun.endswith("ss"):
        return noun  # capsules
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
