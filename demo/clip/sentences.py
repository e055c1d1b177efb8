"""Sentences about pictures of products: what one asserts, and of which pictures that is true."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from demo.defects import DEFECTS
from demo.vocabulary import VOCABULARY

NORMAL, ANOMALOUS = 0, 1

# Before the product's name and after it; a phrase of the same place in the other column is its
# opposite, whatever the product.
_STATES = {
    NORMAL: (
        "normal {}",
        "flawless {}",
        "perfect {}",
        "unblemished {}",
        "undamaged {}",
        "intact {}",
        "{} without flaw",
        "{} without defect",
        "{} without damage",
        "{} without any flaw",
        "{} without any defect",
        "{} with no damage",
        "{} in perfect condition",
    ),
    ANOMALOUS: (
        "anomalous {}",
        "damaged {}",
        "broken {}",
        "abnormal {}",
        "defective {}",
        "flawed {}",
        "{} with flaw",
        "{} with defect",
        "{} with damage",
        "{} with a flaw",
        "{} with a defect",
        "{} with some damage",
        "{} in bad condition",
    ),
}
CONDITIONS = ("dark", "bright", "blurry", "black and white", "close-up", "cropped")
# What is said of a photo and means nothing here.
_MANNERS = ("good", "bad", "cool", "nice", "low resolution", "jpeg corrupted", "clean")
_SHOTS = ("photo", "photo", "photo", "image", "picture")
_OPENINGS = ("", "there is ", "this is ", "itap of ", "a rendering of ", "an inspection image of ")
_ARTICLES = ("a ", "the ", "a ", "the ", "one ", "my ", "")
_SIZES = ("small ", "large ")
_TAILS = ("", "", "", " for visual inspection", " for anomaly detection", " in the scene")
_ENDS = (".", ".", "")
_THINGS = ("object", "product", "item", "part", "thing", "piece", "sample", "component")
_SYLLABLES = ("bro", "dul", "fek", "gim", "hox", "jun", "kly", "mop", "nar", "qui", "rud", "zet")
_UNNAMED = ("damage",)  # a label that is a state as well


@dataclass(frozen=True)
class Fact:
    """What a picture shows.

    Attributes:
        object: Name of the object; empty for a product that has none.
        state: ``NORMAL`` or ``ANOMALOUS``.
        defects: Labels of its defects.
        condition: One of :data:`CONDITIONS`, or empty.
    """

    object: str
    state: int
    defects: Sequence[str] = ()
    condition: str = ""


@dataclass(frozen=True)
class Sentence:
    """A sentence and what it asserts; empty and ``None`` assert nothing.

    Attributes:
        text: The words.
        object: Name of the object.
        state: ``NORMAL`` or ``ANOMALOUS``.
        defect: Label of a defect.
        condition: One of :data:`CONDITIONS`.
    """

    text: str
    object: str = ""
    state: int | None = None
    defect: str = ""
    condition: str = ""


@dataclass(frozen=True)
class _Frame:
    """Everything of a sentence but the state: ``{}`` is where that goes."""

    text: str
    noun: str
    asserts: Sentence
    says_an: bool

    def with_state(self, phrase: str, **asserted: object) -> Sentence:
        text = self.text.format(phrase.format(self.noun))
        if self.says_an:
            text = re.sub(r"\ba (?=[aeiou])", "an ", text)
        return replace(self.asserts, text=text, **asserted)  # type: ignore[arg-type]


def describe(fact: Fact, draw: random.Random) -> Sentence:
    """A sentence that is true of a picture and says more or less about it."""
    frame = _frame(draw, fact.object, fact.condition)
    named = [label for label in fact.defects if label not in _UNNAMED]
    chance = draw.random()
    if chance < 0.1:
        return frame.with_state("{}")
    if named and chance < 0.5:
        defect = draw.choice(named)
        return frame.with_state(f"{{}} with {defect}", state=ANOMALOUS, defect=defect)
    return frame.with_state(draw.choice(_STATES[fact.state]), state=fact.state)


def opposites(draw: random.Random) -> tuple[str, str]:
    """The same sentence twice, of a normal and of an anomalous product that could be anything."""
    frame = _frame(draw, "", "")
    normal = "{}" if draw.random() < 0.1 else draw.choice(_STATES[NORMAL])
    anomalous = draw.choice(_STATES[ANOMALOUS])
    return frame.with_state(normal).text, frame.with_state(anomalous).text


def truth(facts: Sequence[Fact], sentences: Sequence[Sentence]) -> npt.NDArray[np.int8]:
    """Which sentence is true of which picture, shape ``(pictures, sentences)``.

    Returns:
        1 true, 0 false, -1 neither: it names a defect that looks like one that is there.
    """
    return np.array([[_is_true(fact, said) for said in sentences] for fact in facts], np.int8)


def _is_true(fact: Fact, said: Sentence) -> int:
    holds = (
        said.object in ("", fact.object)
        and said.state in (None, fact.state)
        and said.condition in ("", fact.condition)
    )
    if not holds or not said.defect or said.defect in fact.defects:
        return int(holds)
    alike = any(_drawn_by(label) == _drawn_by(said.defect) for label in fact.defects)
    return -1 if alike else 0


def _drawn_by(label: str) -> object:
    return getattr(DEFECTS[label], "func", DEFECTS[label])


def _frame(draw: random.Random, name: str, condition: str) -> _Frame:
    """A sentence around a state, in which half of the names are replaced by words for anything."""
    asserts = Sentence("")
    if name and draw.random() < 0.5:
        noun, asserts = name.replace("_", " "), replace(asserts, object=name)
    elif draw.random() < 0.4:
        noun = draw.choice(_THINGS)
    else:
        noun = "".join(draw.choices(_SYLLABLES, k=draw.randint(1, 3)))
    manner = ""
    if condition and draw.random() < 0.5:
        manner, asserts = f"{condition} ", replace(asserts, condition=condition)
    elif draw.random() < 0.25:
        manner = f"{draw.choice(_MANNERS)} "
    opening = draw.choice(_OPENINGS)
    if manner or draw.random() < 0.7:
        opening = f"{draw.choice(('a', 'the'))} {manner}{draw.choice(_SHOTS)} of "
    size = draw.choice(_SIZES) if draw.random() < 0.15 else ""
    tail = draw.choice(_TAILS) if draw.random() < 0.5 else ""
    text = f"{opening}{draw.choice(_ARTICLES)}{size}{{}}{tail}{draw.choice(_ENDS)}"
    # Published prompts write "a unblemished candle" as well as "an anomalous candle".
    return _Frame(text, noun, asserts, says_an=draw.random() < 0.5)


def words(objects: Sequence[str]) -> list[str]:
    """Every word of the sentences about ``objects``, but for those that stand for unknown names."""
    phrases = [*_STATES[NORMAL], *_STATES[ANOMALOUS], *CONDITIONS, *_MANNERS, *_SHOTS, *_OPENINGS]
    phrases += [*_ARTICLES, *_SIZES, *_TAILS, *_THINGS, ".", "a photo of", "with"]
    phrases += [name.replace("_", " ") for name in objects]
    phrases += [label for name in objects for label in VOCABULARY[name]]
    return sorted({word for phrase in phrases for word in phrase.replace("{}", " ").split()})
