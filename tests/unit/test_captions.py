"""What a training image is said to show."""

from dataclasses import replace

import pytest

from datasets.captions import POLICIES, Captions, says_only_the_label, shuffled_texts
from datasets.record import Record

BAD = Record(path="a.JPG", object="pipe_fryum", label=1, defect="burnt,small scratches,other")
GOOD = Record(path="b.JPG", object="candle", label=0, defect="normal")


def captions(record, policy, dropout=0.0, epochs=200, seed=0):
    write = Captions(policy, dropout, seed)
    return [write(record, epoch) for epoch in range(epochs)]


def test_label_is_what_the_released_code_fed():
    assert set(captions(BAD, "label")) == {"burnt small scratches other"}
    assert set(captions(GOOD, "label")) == {"normal"}


def test_sentences_are_english_and_vary():
    bad, good = set(captions(BAD, "sentence")), set(captions(GOOD, "sentence"))
    assert "a photo of a pipe fryum with burnt, small scratches and other" in bad
    assert "a photo of a candle without defect" in good
    assert len(bad) == 5
    assert len(good) == 20


def test_two_defects_are_joined_by_and():
    record = Record(path="a", object="fryum", label=1, defect="burnt,corner or edge breakage")
    assert "a photo of a fryum with burnt and corner or edge breakage" in captions(
        record, "sentence"
    )


@pytest.mark.parametrize("defect", ["", "anomaly"])
def test_a_defect_without_a_name_is_still_a_sentence(defect):
    record = Record(path="a", object="fryum", label=1, defect=defect)
    assert "a photo of a fryum with a defect" in captions(record, "sentence")


@pytest.mark.parametrize(
    ("name", "words"),
    [("capsules", "capsules"), ("pcb1", "a pcb1"), ("apple", "an apple"), ("glass", "a glass")],
)
def test_articles(name, words):
    record = Record(path="a", object=name, label=0, defect="normal")
    assert captions(record, "object", epochs=1) == [f"a photo of {words}"]


@pytest.mark.parametrize("record", [BAD, GOOD])
def test_the_object_caption_says_nothing_about_the_label(record):
    other = Record(path=record.path, object=record.object, label=1 - record.label, defect="x")
    assert captions(record, "object") == captions(other, "object")


@pytest.mark.parametrize("policy", POLICIES)
def test_dropout_is_the_share_of_object_captions(policy):
    plain = captions(BAD, "object", epochs=1)[0]
    share = captions(BAD, policy, dropout=0.3, epochs=1000).count(plain) / 1000
    assert share == pytest.approx(1.0 if policy == "object" else 0.3, abs=0.05)


def test_the_same_seed_epoch_and_image_give_the_same_caption():
    assert captions(BAD, "sentence", 0.5) == captions(BAD, "sentence", 0.5)
    assert captions(BAD, "sentence", 0.5) != captions(BAD, "sentence", 0.5, seed=1)


def test_text_that_says_only_the_label_is_noticed():
    def records(*texts):
        said = [Record(path="x", object=name, label=1, defect=text) for name, text in texts]
        return [GOOD, *said]

    assert says_only_the_label(records(("brain", "tumor"), ("brain", "tumor")))
    assert says_only_the_label(records(("brain", "tumor"), ("chest", "COVID-19")))
    assert not says_only_the_label(records(("brain", "tumor"), ("brain", "a large tumor")))


def test_shuffled_texts_are_those_of_other_images_of_the_object():
    records = [
        Record(path=f"{name}{i}", object=name, label=i % 2, defect=f"{name} defect {i}")
        for name in ("candle", "fryum")
        for i in range(20)
    ]
    texts = shuffled_texts(records, 0)
    own = {record.path: record.defect for record in records if record.label}
    assert texts.keys() == own.keys()
    for name in ("candle", "fryum"):
        paths = [path for path in texts if path.startswith(name)]
        assert sorted(texts[path] for path in paths) == sorted(own[path] for path in paths)
        assert sum(texts[path] != own[path] for path in paths) >= 5
    assert texts == shuffled_texts(records[::-1], 0)
    assert texts != shuffled_texts(records, 1)


def test_a_shuffled_caption_keeps_object_and_label():
    write = Captions("shuffled", 0.0, 0, {BAD.path: "dents", GOOD.path: "never used"})
    assert write(BAD, 0).endswith("of a pipe fryum with dents")
    assert "candle" in write(GOOD, 0)
    assert "never used" not in write(GOOD, 0)


@pytest.mark.parametrize(
    ("defect", "end"),
    [
        ("misplaced", "of a misplaced pipe fryum"),
        ("broken_large", "of a broken large pipe fryum"),
        ("damaged,scratch", "of a damaged pipe fryum with scratch"),
        ("defective", "of a defective pipe fryum"),
        ("burnt", "of a pipe fryum with burnt"),  # VisA's words stay as they were
        ("damaged_case", "of a pipe fryum with damaged case"),
    ],
)
def test_adjectives_stand_before_the_object(defect, end):
    assert Captions("sentence", 0.0, 0)(replace(BAD, defect=defect), 0).endswith(end)
