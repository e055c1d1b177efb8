"""Writers of small data sets, each in its true layout and with the traps of the real one."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.fixtures import write_visa

SIZES = ((32, 48), (40, 40), (64, 36))


class Painter:
    """Draws grey noise; an anomalous picture has a bright square."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.count = 0

    def __call__(
        self, path: Path, *, is_bad: bool, mode: str = "RGB", mask: Path | None = None
    ) -> None:
        self.count += 1
        height, width = SIZES[self.count % len(SIZES)]
        pixels = self.rng.integers(60, 120, (height, width), dtype=np.uint8)
        area = np.zeros((height, width), dtype=np.uint8)
        if is_bad:
            y, x = self.rng.integers(4, 20, 2)
            pixels[y : y + 10, x : x + 10] = 230
            area[y : y + 10, x : x + 10] = 255
        save(Image.fromarray(pixels).convert(mode), path)
        if mask is not None:
            save(Image.fromarray(area), mask)


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def write_mvtec(root: Path) -> Path:
    """One-channel pictures, masks ``NNN_mask.png``, one object in BTAD's spelling, a licence."""
    paint = Painter()
    for name, mode in (("screw", "L"), ("metal_nut", "RGB")):
        for i in range(6):
            paint(root / name / f"train/good/{i:03d}.png", is_bad=False, mode=mode)
        for i in range(4):
            paint(root / name / f"test/good/{i:03d}.png", is_bad=False, mode=mode)
        for defect in ("bent", "scratch_head"):
            for i in range(4):
                mask = root / name / f"ground_truth/{defect}/{i:03d}_mask.png"
                image = root / name / f"test/{defect}/{i:03d}.png"
                paint(image, is_bad=True, mode=mode, mask=mask)
        (root / name / "license.txt").write_text("CC BY-NC-SA 4.0", encoding="utf-8")
    for i in range(4):
        paint(root / f"01/train/ok/{i:04d}.bmp", is_bad=False)
        paint(root / f"01/test/ok/{i:04d}.bmp", is_bad=False)
        mask = root / f"01/ground_truth/ko/{i:04d}.png"
        paint(root / f"01/test/ko/{i:04d}.bmp", is_bad=True, mask=mask)
    (root / "readme.txt").write_text("", encoding="utf-8")
    return root


def write_bmad(root: Path) -> Path:
    """One set with masks, pictures in ``img``; one without, pictures in ``good`` and ``Ungood``."""
    paint = Painter()
    for i in range(6):
        for kind in ("train/good", "valid/good", "test/good"):
            paint(root / f"Brain_AD/{kind}/img/{i}.png", is_bad=False, mode="L")
            paint(root / f"Chest-RSNA/{kind}/{i}.png", is_bad=False, mode="L")
        for level, masks in (("valid", "anomaly_mask"), ("test", "label")):
            folder = root / "Brain_AD" / level / "Ungood"
            paint(folder / f"img/{i}.png", is_bad=True, mode="L", mask=folder / masks / f"{i}.png")
            paint(root / f"Chest-RSNA/{level}/Ungood/{i}.png", is_bad=True, mode="L")
    return root


def write_folder(root: Path) -> Path:
    """Two folders of somebody's pictures, as cameras and telephones name them."""
    paint = Painter()
    for i in range(9):
        suffix = (".JPG", ".png", ".jpeg")[i % 3]
        paint(root / f"Good/Bild Nr. {i} ä{suffix}", is_bad=False)
        kind = ("", "dent/", "Kratzer tief/")[i % 3]
        paint(root / f"bad/{kind}IMG_{i}{suffix}", is_bad=True)
    (root / "Good/IMG_1.heic").write_bytes(b"heic")
    (root / "Good/.DS_Store").write_bytes(b"")
    (root / "bad/._IMG_0.JPG").write_bytes(b"\0\5\26\7")
    (root / "Thumbs.db").write_bytes(b"")
    return root


def write_table_of_images(root: Path) -> Path:
    """A table with space around its names, absolute paths, text with commas, and patients."""
    paint = Painter()
    rows = []
    for i in range(20):
        label, name = i % 2, ("left hand", "Schädel")[i // 10]
        path = root / f"pictures/{i:02d}.png"
        paint(path, is_bad=bool(label))
        said = f"a fracture, {i} mm" if label else ""
        shown = path if i % 4 else path.relative_to(root)
        rows.append([shown, ("Normal", "Anomalous")[label], name, said, f"p{i // 4}", "x"])
    header = ["image_path", " label", "object", "text", "patient", "camera"]
    write_table(root / "labels.csv", header, rows)
    return root


def write_meta(root: Path) -> Path:
    """MVTec's pictures in a list as others write it: ``good``, empty species, absolute paths."""
    write_mvtec(root)
    meta: dict[str, dict[str, list[dict[str, object]]]] = {"train": {}, "test": {}}
    for path in sorted(root.glob("*/test/*/*")):
        name, _, species, file = path.relative_to(root).parts
        label = int(species not in ("good", "ok"))
        mask = next((root / name / "ground_truth" / species).glob(f"{path.stem}*"), "")
        entry = {
            "img_path": str(path if name == "screw" else path.relative_to(root)),
            "mask_path": str(mask and mask.relative_to(root)),
            "cls_name": name,
            "specie_name": "" if name == "metal_nut" else species,
            "anomaly": label,
        }
        split = ("train", "test")[int(path.stem) % 2]
        meta[split].setdefault(name, []).append({"file": file, **entry})
    (root / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return root


def write_headct(root: Path) -> Path:
    """A header with a space after the comma, numbers without zeros, RGBA among RGB."""
    paint = Painter()
    for i in range(20):
        mode = "RGBA" if i % 5 == 0 else "RGB"
        paint(root / f"head_ct/{i:03d}.png", is_bad=i < 10, mode=mode)
    lines = ["id, hemorrhage", *(f"{i},{int(i < 10)}" for i in range(20))]
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def write_brainmri(root: Path) -> Path:
    """Suffixes and modes of all kinds, copies inside of the classes, all of it a second time."""
    paint = Painter()
    for kind, count in (("no", 8), ("yes", 10)):
        for i in range(count):
            suffix = (".jpg", ".JPG", ".jpeg", ".png")[i % 4]
            mode = ("RGB", "L")[i % 2]
            paint(root / kind / f"{kind[0].upper()}{i}{suffix}", is_bad=kind == "yes", mode=mode)
        for i in range(3):
            shutil.copy(root / kind / f"{kind[0].upper()}0.jpg", root / kind / f"copy {i}.jpg")
    for kind in ("no", "yes"):
        shutil.copytree(root / kind, root / "brain_tumor_dataset" / kind)
    return root


def write_br35h(root: Path) -> Path:
    """The two classes, and a folder of pictures without a label."""
    paint = Painter()
    for i in range(8):
        paint(root / f"no/no{i}.jpg", is_bad=False)
        paint(root / f"yes/y{i}.jpg", is_bad=True)
        paint(root / f"pred/pred{i}.jpg", is_bad=bool(i % 2))
    return root


def write_covid19(root: Path) -> Path:
    """Pictures in ``images``, masks of lungs beside them, a class that is neither."""
    paint = Painter()
    for i in range(8):
        lungs = root / f"COVID/masks/COVID-{i}.png"
        paint(root / f"COVID/images/COVID-{i}.png", is_bad=True, mode="L", mask=lungs)
        paint(root / f"Normal/images/Normal-{i}.png", is_bad=False, mode="L")
        paint(root / f"Lung_Opacity/images/Lung_Opacity-{i}.png", is_bad=True, mode="L")
    (root / "COVID.metadata.xlsx").write_bytes(b"")
    return root


# For every reader a writer, and the options that its data need.
LAYOUTS: dict[str, tuple[Callable[[Path], Path], dict[str, str]]] = {
    "bmad": (write_bmad, {}),
    "csv": (write_table_of_images, {"group": "patient"}),
    "folder": (write_folder, {}),
    "headct": (write_headct, {}),
    "meta": (write_meta, {}),
    "mvtec": (write_mvtec, {"split": "2cls"}),
    "visa": (write_visa, {"split": "2cls_highshot"}),
}

# Data sets that the reader folder reads with the options of options/<name>.yaml.
SORTED: dict[str, Callable[[Path], Path]] = {
    "br35h": write_br35h,
    "brainmri": write_brainmri,
    "covid19": write_covid19,
}
