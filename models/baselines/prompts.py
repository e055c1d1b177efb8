"""The sentences of each published method about an object, word for word.

A state is put into a template: the state ``flawless {}`` and the template ``a photo of a {}.`` make
the sentence ``a photo of a flawless candle.``
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompts:
    """States of a normal and of an anomalous object, and the templates for both.

    Attributes:
        normal: States, with ``{}`` in place of the object's name.
        anomalous: States, with ``{}`` in place of the object's name.
        templates: Sentences, with ``{}`` in place of the state.
        underscore: Whether the underscores of an object's name stay in the sentence.
        normalize_each: Whether each sentence's embedding gets length 1 before the mean over the
            sentences is taken. The mean gets length 1 in any case.
    """

    normal: tuple[str, ...]
    anomalous: tuple[str, ...]
    templates: tuple[str, ...] = ("{}",)
    underscore: bool = False
    normalize_each: bool = True

    def sentences(self, name: str) -> tuple[list[str], list[str]]:
        """All normal and all anomalous sentences about the object ``name``."""
        name = name if self.underscore else name.replace("_", " ")
        return self._fill(self.normal, name), self._fill(self.anomalous, name)

    def _fill(self, states: Iterable[str], name: str) -> list[str]:
        return [t.replace("{}", s.replace("{}", name)) for s in states for t in self.templates]


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


_NORMAL = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
_ANOMALOUS = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")

# OpenAI's templates for ImageNet, 80 of them.
IMAGENET = _lines("""
    a bad photo of a {}.
    a photo of many {}.
    a sculpture of a {}.
    a photo of the hard to see {}.
    a low resolution photo of the {}.
    a rendering of a {}.
    graffiti of a {}.
    a bad photo of the {}.
    a cropped photo of the {}.
    a tattoo of a {}.
    the embroidered {}.
    a photo of a hard to see {}.
    a bright photo of a {}.
    a photo of a clean {}.
    a photo of a dirty {}.
    a dark photo of the {}.
    a drawing of a {}.
    a photo of my {}.
    the plastic {}.
    a photo of the cool {}.
    a close-up photo of a {}.
    a black and white photo of the {}.
    a painting of the {}.
    a painting of a {}.
    a pixelated photo of the {}.
    a sculpture of the {}.
    a bright photo of the {}.
    a cropped photo of a {}.
    a plastic {}.
    a photo of the dirty {}.
    a jpeg corrupted photo of a {}.
    a blurry photo of the {}.
    a photo of the {}.
    a good photo of the {}.
    a rendering of the {}.
    a {} in a video game.
    a photo of one {}.
    a doodle of a {}.
    a close-up photo of the {}.
    a photo of a {}.
    the origami {}.
    the {} in a video game.
    a sketch of a {}.
    a doodle of the {}.
    a origami {}.
    a low resolution photo of a {}.
    the toy {}.
    a rendition of the {}.
    a photo of the clean {}.
    a photo of a large {}.
    a rendition of a {}.
    a photo of a nice {}.
    a photo of a weird {}.
    a blurry photo of a {}.
    a cartoon {}.
    art of a {}.
    a sketch of the {}.
    a embroidered {}.
    a pixelated photo of a {}.
    itap of the {}.
    a jpeg corrupted photo of the {}.
    a good photo of a {}.
    a plushie {}.
    a photo of the nice {}.
    a photo of the small {}.
    a photo of the weird {}.
    the cartoon {}.
    art of the {}.
    a drawing of the {}.
    a photo of the large {}.
    a black and white photo of a {}.
    the plushie {}.
    a dark photo of a {}.
    itap of a {}.
    graffiti of the {}.
    a toy {}.
    itap of my {}.
    a photo of a cool {}.
    a photo of a small {}.
    a tattoo of the {}.
""")

_WINCLIP = _lines("""
    a cropped photo of the {}.
    a cropped photo of a {}.
    a close-up photo of a {}.
    a close-up photo of the {}.
    a bright photo of a {}.
    a bright photo of the {}.
    a dark photo of a {}.
    a dark photo of the {}.
    a jpeg corrupted photo of a {}.
    a jpeg corrupted photo of the {}.
    a blurry photo of the {}.
    a blurry photo of a {}.
    a photo of the {}.
    a photo of a {}.
    a photo of a small {}.
    a photo of the small {}.
    a photo of a large {}.
    a photo of the large {}.
    a photo of a {} for visual inspection.
    a photo of the {} for visual inspection.
    a photo of a {} for anomaly detection.
    a photo of the {} for anomaly detection.
""")
_DROPPED = ("a cropped photo of a {}.", "a jpeg corrupted photo of a {}.")
_REPEATED = "a jpeg corrupted photo of the {}."

_VAND = _lines("""
    a bad photo of a {}.
    a low resolution photo of the {}.
    a bad photo of the {}.
    a cropped photo of the {}.
    a bright photo of a {}.
    a dark photo of the {}.
    a photo of my {}.
    a photo of the cool {}.
    a close-up photo of a {}.
    a black and white photo of the {}.
    a bright photo of the {}.
    a cropped photo of a {}.
    a jpeg corrupted photo of a {}.
    a blurry photo of the {}.
    a photo of the {}.
    a good photo of the {}.
    a photo of one {}.
    a close-up photo of the {}.
    a photo of a {}.
    a low resolution photo of a {}.
    a photo of a large {}.
    a blurry photo of a {}.
    a jpeg corrupted photo of the {}.
    a good photo of a {}.
    a photo of the small {}.
    a photo of the large {}.
    a black and white photo of a {}.
    a dark photo of a {}.
    a photo of a cool {}.
    a photo of a small {}.
    there is a {} in the scene.
    there is the {} in the scene.
    this is a {} in the scene.
    this is the {} in the scene.
    this is one {} in the scene.
""")

# CLIP as AnomalyCLIP's authors ran it: two sentences, or the two states in OpenAI's templates.
CLIP_PROMPTS = {
    "two": Prompts(("a photo of a normal {}.",), ("a photo of an anomalous {}.",)),
    "templates": Prompts(("normal {}",), ("anomalous {}",), IMAGENET),
}
# WinCLIP has no official code. mala-lab/WinCLIP has 22 templates; the list of 21 in
# zqhang/Accurate-WinCLIP-pytorch and anomalib lacks two of them and has one twice.
WINCLIP_PROMPTS = {
    "mala_lab": Prompts(_NORMAL, _ANOMALOUS, _WINCLIP),
    "anomalib": Prompts(
        _NORMAL,
        _ANOMALOUS,
        (*(t for t in _WINCLIP if t not in _DROPPED), _REPEATED),
        underscore=True,
        normalize_each=False,
    ),
}
# ByChelsea/VAND-APRIL-GAN, f13b8a6.
VAND_PROMPTS = Prompts(
    _NORMAL,
    ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage"),
    _VAND,
    underscore=True,
)
