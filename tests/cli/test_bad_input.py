"""Bad options and bad data, each through run.py: one clear line, exit status 2, nothing written."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

import run as run_py
from tests.fixtures import write_smoke, write_visa

TABLE = "split_csv/2cls_highshot.csv"
GOOD = "candle/Data/Images/Normal/000.JPG"
ROW = f"candle,train,normal,{GOOD},"


def edit(path, old, new):
    def do(root):
        text = (root / path).read_bytes().decode()
        assert old in text
        (root / path).write_bytes(text.replace(old, new, 1).encode())

    return do


def add(row):
    def do(root):
        with (root / TABLE).open("a") as file:
            file.write(f"{row}\r\n")

    return do


def write(path, content):
    return lambda root: (root / path).write_bytes(content)


def truncate(root):
    content = (root / GOOD).read_bytes()
    (root / GOOD).write_bytes(content[: len(content) // 2])


def link_out(root):
    (root / GOOD).rename(root.parent / "outside.JPG")
    (root / GOOD).symlink_to(root.parent / "outside.JPG")


DATA = {
    "empty table": (write(TABLE, b""), r"2cls_highshot.csv:1: no column 'object'"),
    "table without rows": (write(TABLE, b"object,split,label,image,mask\n"), "lists no images"),
    "missing image": (lambda root: (root / GOOD).unlink(), "1 of 44 files are missing"),
    "missing table": (lambda root: (root / TABLE).unlink(), "no data in VisA's layout are in"),
    "missing annotations": (
        lambda root: (root / "candle/image_anno.csv").unlink(),
        "image_anno.csv: cannot be read",
    ),
    "truncated picture": (truncate, "000.JPG: cannot be read as a picture"),
    "picture of zero bytes": (write(GOOD, b""), r"000.JPG: is not a picture \(0 bytes\)"),
    "text instead of a picture": (write(GOOD, b"hello"), "000.JPG: is not a picture"),
    "unknown label": (edit(TABLE, ",normal,", ",good,"), "label must be normal or anomaly"),
    "unknown split": (edit(TABLE, ",train,", ",training,"), "split must be train or test"),
    "image listed twice": (add(ROW), "is listed 2 times"),
    "path that leaves the root": (add(ROW.replace("candle/D", "../D")), "must stay below the root"),
    "absolute path": (add(ROW.replace("candle/D", "/D")), "must stay below the root"),
    "link that leaves the root": (link_out, "is a link that leads out of"),
    "row that is cut off": (add("candle,train"), "expected 5 columns"),
    "tables that disagree": (
        edit("candle/image_anno.csv", "000.JPG,normal", "000.JPG,burnt"),
        "but the split file says normal",
    ),
    "no anomalous image": (
        lambda root: (root / TABLE).write_text(
            (root / TABLE).read_text(encoding="utf-8").replace("train,a", "test,a"),
            encoding="utf-8",
        ),
        "hold no anomalous image",
    ),
    "table that is not text": (write(TABLE, b"object\xff\x81"), "is not UTF-8"),
}
OPTIONS = {
    "wrong type": ("engine.epochs=many", "expected a whole number, got 'many'"),
    "unknown key": ("engine.epocs=3", "did you mean 'epochs'"),
    "unknown name": ("teacher.model.fusion.name=cros_attention", "did you mean 'cross_attention'"),
    "unknown object": (
        "dataset.objects=[fryum]",
        "no object 'fryum'; there are candle, pipe_fryum",
    ),
    "unknown split": ("dataset.split=highshot", "did you mean '2cls_highshot'"),
    "unknown arch": ("student.model.img_enc.arch=tiny-RM", "unknown arch 'tiny-RM'"),
    "unknown tag": ("student.model.img_enc.pre_trained=openai", "neither a file nor a tag"),
    "odd size": ("student.image.size=[33, 64]", r"\[33, 64\] must be a multiple of 32 x 32"),
    "heads": ("teacher.model.fusion.heads=5", r"dim \(32\) must be a multiple of heads \(5\)"),
    "bad optimiser option": (
        "optimizer.betas=[2, 2]",
        r"optimizer.betas\[1\]: must be in \[0, 1\), got 2.0",
    ),
    "bad schedule option": (
        "schedule={name: one_cycle, warmup: 2}",
        r"schedule.warmup: must be in \(0, 1\), got 2.0",
    ),
    "no such teacher": ("teacher=nowhere", "nowhere/best.safetensors is missing"),
    "no such device": ("misc.device=mps", "device: this machine has no mps; write auto"),
}


def fails(capsys, options, *overrides):
    assert run_py.main([str(options), *overrides]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("fault", DATA)
def test_bad_data(tmp_path, capsys, fault):
    spoil, message = DATA[fault]
    root = write_visa(tmp_path / "visa")
    spoil(root)
    assert re.search(message, fails(capsys, write_smoke(tmp_path, root)))
    if "picture" not in fault:  # a picture is opened when its turn comes
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fault", OPTIONS)
@pytest.mark.slow
def test_bad_options(tmp_path, smoke, capsys, fault):
    override, message = OPTIONS[fault]
    options = write_smoke(tmp_path, smoke / "visa")
    assert re.search(
        message,
        fails(capsys, options, override, "engine.epochs=1")
        if "epochs" not in override
        else fails(capsys, options, override),
    )


def test_a_mistyped_option_leaves_nothing(tmp_path, smoke, capsys):
    options = write_smoke(tmp_path, smoke / "visa")
    fails(capsys, options, "teacher.model.img_enc.pre_trained=nofile.pt")
    assert not (tmp_path / "run").exists()


def test_cuda_that_is_not_there(tmp_path, smoke, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    options = write_smoke(tmp_path, smoke / "visa")
    assert "device: this machine has no cuda; write auto" in fails(
        capsys, options, "misc.device=cuda"
    )


def test_a_folder_that_cannot_be_written(tmp_path, smoke, capsys):
    (tmp_path / "run").write_text("a file stands in the way", encoding="utf-8")
    message = fails(capsys, write_smoke(tmp_path, smoke / "visa"))
    assert re.search(r"run/teacher: cannot be written \(Not a directory\)", message)


@pytest.mark.slow
def test_pictures_of_every_legal_kind_are_read(tmp_path):
    root = write_visa(tmp_path / "visa")
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (32, 48), dtype=np.uint8)
    colour = np.dstack([grey, grey, grey])
    kinds = {
        "000": ("JPEG", Image.fromarray(colour).convert("CMYK")),
        "001": ("PNG", Image.fromarray(grey.astype(np.uint16) * 257)),
        "002": ("PNG", Image.fromarray(colour).quantize(8)),
        "003": ("PNG", Image.fromarray(np.dstack([colour, grey]))),
        "004": ("PNG", Image.fromarray(grey)),
        "005": ("TIFF", Image.fromarray(colour)),
    }
    for stem, (kind, image) in kinds.items():
        image.save(root / f"candle/Data/Images/Normal/{stem}.JPG", kind)
    options = write_smoke(tmp_path, root)
    assert run_py.main([str(options), "engine.epochs=1"]) == 0
