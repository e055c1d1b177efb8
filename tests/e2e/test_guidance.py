"""A student that is told where the defect is, and what it is."""

import pandas as pd
import pytest
import torch

import run as run_py
from datasets import mask
from jobs.build import load_model
from jobs.training.teacher import compute_once
from models.objectives.base import LiveTeacher
from models.word_maps import word_maps
from options.load import load
from tests.fixtures import job_of, random_batch, write_smoke

GUIDED = (
    "student.model.classif.name=patches",
    "student.augment.horizontal_flip=0",
    "student.captions.dropout=0",
    "student.objective.attention_weight=1",
    "student.objective.words_weight=1",
)


@pytest.fixture
def path(smoke, tmp_path):
    """The smoke run's options with its trained teacher."""
    path = write_smoke(tmp_path, smoke / "visa")
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition("teacher:\n")
    path.write_text(
        f"{before}teacher: {smoke}/run/teacher\nstudent:{rest.partition('student:')[2]}",
        encoding="utf-8",
    )
    return path


def targets_of(path, *overrides):
    job = job_of(load(path, [*GUIDED, *overrides]))
    model, stage, _ = load_model(job.run.teacher / "best.safetensors")
    return job, model, stage, compute_once(job, LiveTeacher(model), stage, "hash")


def test_a_student_is_guided_and_needs_no_text_afterwards(path, tmp_path):
    assert run_py.main([str(path), *GUIDED]) == 0
    folder = tmp_path / "run" / "student"
    log = pd.read_csv(folder / "log.csv")
    assert log["words"].iloc[-1] < log["words"].iloc[0]
    assert ((log["attention"] > 0) & (log["attention"] < 2)).all()
    model, _, _ = load_model(folder / "best.safetensors")
    assert {name.split(".")[0] for name in model.state_dict()} == {"img_enc", "classif"}


def test_the_table_has_the_attention_to_the_words_of_the_defect(path):
    job, model, stage, targets = targets_of(path)
    places, kinds = targets.more["places"], targets.more["kinds"]
    records = job.data.train
    label = torch.tensor([record.label for record in records])
    assert places.isfinite().flatten(1).all(dim=1).tolist() == label.bool().tolist()
    names = sorted({name for record in records for name in record.defects})
    for record, of_image in zip(records, kinds.tolist(), strict=True):
        assert of_image == [float(name in record.defects) for name in names]

    # The same from the maps of single words, which visualize.py draws.
    row = int(label.nonzero()[0])
    record, store = records[row], job.data.store
    image = store.pixels([record], stage.image.view)(0).unsqueeze(0)
    caption = job.captions(record, 0)
    batch = random_batch(1)
    batch = batch.__class__(**{**vars(batch), "image": image, "caption": [caption]})
    words = word_maps(model, batch)[1][0]
    after = caption.split().index("with") + 1
    wanted = [i for i in range(after, len(words.words)) if words.words[i] not in ("and", ",")]
    pooled = torch.nn.functional.interpolate(
        words.maps[wanted].mean(0)[None, None], places.shape[1:], mode="area"
    )[0, 0]
    torch.testing.assert_close(places[row], pooled, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("policy", ["shuffled", "label"])
def test_the_policy_of_the_captions_changes_the_kinds(path, policy):
    _, _, _, plain = targets_of(path)
    _, _, _, other = targets_of(path, f"captions.policy={policy}")
    assert not other.more["kinds"].equal(plain.more["kinds"])
    if policy == "label":  # one kind for each text
        assert set(other.more["kinds"].sum(dim=1).tolist()) == {0.0, 1.0}


@pytest.mark.slow
def test_an_image_only_teacher_has_its_own_map(smoke, tmp_path):
    path = write_smoke(tmp_path, smoke / "visa")
    overrides = [
        *GUIDED[:-1],
        "engine.epochs=1",
        "teacher.model={name: student, img_enc: {name: clip, arch: tiny-RN, pre_trained: random}, "
        "classif: {name: patches}}",
    ]
    assert run_py.main([str(path), *overrides]) == 0
    assert pd.read_csv(tmp_path / "run" / "student" / "log.csv")["attention"].iloc[-1] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["student.model.classif.name=linear", "student.objective.words_weight=0"],
            "attention_weight: needs classif: patches",
        ),
        (["student.augment.vertical_flip=0.5"], "augment.vertical_flip: moves the image, but not"),
        (["engine.targets=live"], "attention_weight: needs engine.targets: once"),
        (["captions.policy=object"], "name no defect; set it to 0"),
        (["student.model.classif.detectors=1"], "student.model.classif.detectors="),
        (["student.image.resize=pad"], "the teacher's is full, so that its attention is of other"),
    ],
)
def test_guidance_that_cannot_work_is_one_line(path, tmp_path, capsys, overrides, message):
    given = {text.partition("=")[0] for text in overrides}
    options = [text for text in GUIDED if text.partition("=")[0] not in given]
    assert run_py.main([str(path), *options, *overrides]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "student" / "last.pt").exists()


@pytest.mark.slow
def test_masks_are_read_only_where_they_guide(path, tmp_path, monkeypatch):
    read = []
    original = mask.read_mask
    monkeypatch.setattr(mask, "read_mask", lambda file: read.append(file) or original(file))
    alone = ["teacher=null", "student.objective.name=cross_entropy", *GUIDED[:2]]
    weight = "student.objective.mask_weight=1"
    assert run_py.main([str(path), *alone, f"exp.dir={tmp_path}/alone"]) == 0
    assert read == []
    assert run_py.main([str(path), *alone, weight, f"exp.dir={tmp_path}/all"]) == 0
    everything = set(read)
    read.clear()
    few = f"exp.dir={tmp_path}/few"
    assert (
        run_py.main([str(path), *alone, weight, "student.objective.mask_fraction=0.01", few]) == 0
    )
    assert 1 <= len(set(read)) < len(everything)
    assert set(read) < everything
