"""Everything a YAML file may say."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from datasets import DATASETS
from datasets.augment import Augment
from datasets.cache import FOLDER
from datasets.captions import Policy
from datasets.image import Resize
from datasets.image_text import SAMPLERS
from models.methods import METHODS
from models.objectives import OBJECTIVES
from utils.optimizers import OPTIMIZERS
from utils.registry import Component
from utils.schedules import SCHEDULES

STAGES = ("teacher", "student")


@dataclass(frozen=True, kw_only=True)
class Exp:
    """Where the experiment lives.

    Attributes:
        dir: Folder for everything it writes; each stage gets a folder in it.
        resume: What to do with a folder that holds a run already. ``same_options``: go on, or use
            what is finished, if it was made with the same options, else refuse; ``any_options``:
            go on all the same; ``never``: refuse.
    """

    dir: Path = field(compare=False)
    resume: Literal["same_options", "any_options", "never"] = field(
        default="same_options", compare=False
    )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Which images.

    Attributes:
        name: Which reader.
        dir: Folder with the data.
        split: Which of its splits; for VisA ``2cls_highshot``, ``2cls_fewshot`` or ``1cls``.
        objects: Which objects; empty: all.
        val_fraction: Share of the training images put aside to choose the checkpoint, stratified
            by object and label.
        cache: Folder for decoded images, which are made once and used by every epoch and run;
            ``null``: decode each time. ``python -m datasets.cache`` lists and clears it.
        cache_gb: Most gigabytes (10^9 bytes) kept there; the longest unused go first.
    """

    name: Annotated[str, DATASETS]
    dir: Path = field(compare=False)
    split: str = ""
    objects: tuple[str, ...] = ()
    val_fraction: float = 0.2
    cache: Path | None = field(default=FOLDER, compare=False)
    cache_gb: float = field(default=100.0, compare=False)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.cache_gb <= 0:
            raise ValueError(f"cache_gb must be more than 0, got {self.cache_gb}")
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction must be between 0 and 1, got {self.val_fraction}")


@dataclass(frozen=True, kw_only=True)
class Image:
    """What the network sees of a picture.

    Attributes:
        size: Side in pixels, or ``[height, width]``.
        resize: ``full``: all of the picture, stretched; ``pad``: all of it in its own proportions;
            ``center_crop``: the released way, which cuts the sides off.
    """

    size: int | tuple[int, int] = 224
    resize: Resize = "full"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if min(self.height_width) < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """What the teacher reads: while it is trained, and while it guides a student.

    Attributes:
        policy: ``label``: the defect string or ``normal``; ``sentence``: an English sentence made
            of it; ``object``: the object's name alone.
        dropout: Probability that an image gets its ``object`` caption instead, so that the teacher
            has to look at the image.
    """

    policy: Policy = "sentence"
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be in [0, 1], got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the training runs.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per step.
        eval_batch_size: Images per step where nothing is learned; changes no score.
        sampler: Order of the training images: ``shuffle``, or ``balanced``: both labels equally
            often.
        num_workers: Loader processes; 0: none, ``null``: as many as help.
        compile: Whether ``torch.compile`` translates the network first. It needs a C++ compiler, or
            Triton on GPUs, and a minute; on CPUs it does not make a training step faster.
        pixels_on_device: Whether all decoded images are kept in the device's memory.
        targets: What a teacher says about an image that guides a student. ``once``: asked once per
            image, with one caption, before the training; ``live``: asked at every step, with the
            caption of the epoch.
    """

    epochs: int = 15
    batch_size: int = 24
    eval_batch_size: int = field(default=64, compare=False)
    sampler: Annotated[str, SAMPLERS] = "shuffle"
    num_workers: int | None = field(default=None, compare=False)
    compile: bool = field(default=False, compare=False)
    pixels_on_device: bool = field(default=False, compare=False)
    targets: Literal["once", "live"] = "once"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("epochs", "batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_workers is not None and self.num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {self.num_workers}")


@dataclass(frozen=True, kw_only=True)
class Misc:
    """What else there is.

    Attributes:
        seed: Every random choice follows from it.
        device: ``auto`` takes cuda, else mps, else cpu.
        precision: Of the networks' arithmetic; losses and scores are always fp32. ``auto``: bf16
            where the hardware has fast units for it, else fp32.
    """

    seed: int = 1204
    device: Literal["auto", "cpu", "cuda", "mps"] = field(default="auto", compare=False)
    precision: Literal["auto", "fp32", "bf16"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One network and its training. A section at the top of a file is the default of each stage.

    Attributes:
        model: Which network, with its options.
        image: What it sees of a picture.
        augment: Random changes to its training images.
        captions: What the teacher reads.
        objective: What to minimise, with its options.
        optimizer: Any of ``torch.optim`` by its name, with its options.
        schedule: How the learning rate changes, with its options.
        engine: How the training runs.
    """

    model: Annotated[Component, METHODS]
    objective: Annotated[Component, OBJECTIVES]
    optimizer: Annotated[Component, OPTIMIZERS]
    schedule: Annotated[Component, SCHEDULES]
    image: Image = field(default_factory=Image)
    augment: Augment = field(default_factory=Augment)
    captions: CaptionOptions = field(default_factory=CaptionOptions)
    engine: Engine = field(default_factory=Engine)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One experiment.

    Attributes:
        exp: Where it lives.
        dataset: Which images.
        misc: Seed, device, precision.
        teacher: The teacher to train, or the folder of a trained one; ``null``: none.
        student: The student to train, after the teacher; ``null``: none.
    """

    exp: Exp
    dataset: Dataset
    misc: Misc = field(default_factory=Misc)
    teacher: Stage | Path | None = None
    student: Stage | None = None

    def __post_init__(self) -> None:
        """Checks that there is something to do."""
        if self.student is None and not isinstance(self.teacher, Stage):
            raise ValueError("nothing to train: write a section 'teacher' or 'student'")
        if self.student is not None and self.teacher is None:
            objective = self.student.objective
            if OBJECTIVES[objective.name].needs_teacher:
                raise ValueError(
                    f"student.objective: {objective.name} needs a teacher: write a section "
                    "'teacher', or teacher: FOLDER of a trained one"
                )
