"""Everything a YAML file may say."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from datasets.augment import Augment
from datasets.captions import Policy
from datasets.image import Resize, View
from datasets.image_text import SAMPLERS
from datasets.readers import DATASETS
from models.methods import METHODS
from models.objectives import OBJECTIVES
from utils.optimizers import OPTIMIZERS
from utils.ranges import BelowOne, Count, Probability, Range
from utils.registry import INLINE, NOT_AN_OPTION, Component
from utils.schedules import SCHEDULES
from utils.store import FOLDER

Side = Annotated[int, Range(1, 100_000)]
SEEDS = Range(1, 1_000)  # how many runs of one experiment
STAGES = ("teacher", "student", "baseline")


@dataclass(frozen=True, kw_only=True)
class Exp:
    """Where the experiment lives.

    Attributes:
        dir: Folder for everything it writes; each stage gets a folder in it.
        resume: What to do with a folder that holds a run already. ``same_options``: go on, or use
            what is finished, if it was made with the same options, else refuse; ``any_options``:
            go on all the same, even if images that it was trained on are test images now;
            ``never``: refuse.
    """

    dir: Path = field(compare=False)
    resume: Literal["same_options", "any_options", "never"] = field(
        default="same_options", compare=False
    )


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set.

    Attributes:
        reader: Which reader; its options stand beside it.
        dir: Folder with the data.
    """

    reader: Annotated[Component, DATASETS] = field(metadata=INLINE)
    dir: Path = field(compare=False)

    @property
    def name(self) -> str:
        """The reader's name."""
        return self.reader.name

    @property
    def split(self) -> str:
        """Which of the data set's splits; empty where it has but one."""
        return str(self.reader.options.get("split", ""))

    @property
    def objects(self) -> tuple[str, ...]:
        """Which objects; empty: all."""
        chosen: tuple[str, ...] = self.reader.options["objects"]
        return chosen

    def with_reader(self, **options: Any) -> Self:
        """The same data set with other options of its reader."""
        reader = replace(self.reader, options={**self.reader.options, **options})
        return replace(self, reader=reader)


@dataclass(frozen=True, kw_only=True)
class Dataset(Source):
    """Which images.

    Attributes:
        reader: Which reader; its options stand beside it.
        dir: Folder with the data.
        per_object: Whether each object gets networks of its own, in ``<exp.dir>/<object>``.
        hold_out: Objects that are not trained on; they alone are tested then.
        val_fraction: Share of the training images put aside to choose the checkpoint, stratified
            by object and label; 0: none, where ``engine.keep`` is ``last``.
        auxiliary: What a baseline is trained on; none of its images is ever tested here.
        cache: Folder for decoded images, which are made once and used by every epoch and run;
            ``null``: decode each time, and keep nothing. ``python cache.py`` lists and clears it.
        cache_gb: Most gigabytes (10^9 bytes) kept there; the longest unused go first, what a run
            reads has to fit.
        allow_leak: Images whose copies may be in train and in test: paths as the finding of
            ``python check.py`` names them, patterns with ``*``, or ``all``.
    """

    per_object: bool = False
    hold_out: tuple[str, ...] = ()
    val_fraction: BelowOne = 0.2
    auxiliary: Source | None = None
    cache: Path | None = field(default=FOLDER, compare=False)
    cache_gb: Annotated[float, Range(0, 1_000_000, "(]")] = field(default=100.0, compare=False)
    allow_leak: Literal["all"] | tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Checks that objects are not held out of networks that see one object each."""
        if self.per_object and self.hold_out:
            raise ValueError("per_object: a network of one object sees no other; drop hold_out")


@dataclass(frozen=True, kw_only=True)
class Image:
    """What the network sees of a picture.

    Attributes:
        size: Side in pixels, or ``[height, width]``.
        resize: ``full``: all of the picture, stretched; ``pad``: all of it in its own proportions;
            ``center_crop``: the released way, which cuts the sides off; ``tiles``: overlapping
            squares side by side, for ``winclip``.
    """

    size: Side | tuple[Side, Side] = 224
    resize: Resize = "full"

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def view(self) -> View:
        """From a picture to what the network sees."""
        return View(self.height_width, self.resize)


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
    dropout: Probability = 0.5


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the training runs.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per step.
        eval_batch_size: Images per step where nothing is learned; changes no score.
        sampler: Order of the training images: ``shuffle``, or ``balanced``: both labels equally
            often.
        keep: Which epoch's weights: ``best`` on the validation images, or the ``last``.
        num_workers: Loader processes; 0: none, ``null``: as many as help.
        compile: Whether ``torch.compile`` translates the network first. It needs a C++ compiler, or
            Triton on GPUs, and a minute; on CPUs it does not make a training step faster.
        pixels_on_device: Whether all decoded images are kept in the memory of each device.
        targets: What a teacher says about an image that guides a student. ``once``: asked once per
            image, with one caption, before the training; ``live``: asked at every step, with the
            caption of the epoch.
    """

    epochs: Count = 15
    batch_size: Count = 24
    eval_batch_size: Count = field(default=64, compare=False)
    sampler: Annotated[str, SAMPLERS] = "shuffle"
    keep: Literal["best", "last"] = "best"
    num_workers: Annotated[int, Range(0, 256)] | None = field(default=None, compare=False)
    compile: bool = field(default=False, compare=False)
    pixels_on_device: bool = field(default=False, compare=False)
    targets: Literal["once", "live"] = "once"


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

    What needs no training needs no objective, optimizer and schedule.

    Attributes:
        model: Which network, with its options.
        image: What it sees of a picture.
        augment: Random changes to its training images.
        captions: What the teacher reads.
        objective: What to minimize, with its options.
        optimizer: How the parameters are changed by their gradients.
        schedule: How the learning rate changes, with its options.
        engine: How the training runs.
    """

    model: Annotated[Component, METHODS]
    objective: Annotated[Component | None, OBJECTIVES] = None
    optimizer: Annotated[Component | None, OPTIMIZERS] = None
    schedule: Annotated[Component | None, SCHEDULES] = None
    image: Image = field(default_factory=Image)
    augment: Augment = field(default_factory=Augment)
    captions: CaptionOptions = field(default_factory=CaptionOptions)
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        """Checks that a training is described where one is needed."""
        for name in ("objective", "optimizer", "schedule") if self.needs_training else ():
            if getattr(self, name) is None:
                raise ValueError(f"missing option {name!r}; {self.model.name} is to be trained")
        masks = self.objective is not None and OBJECTIVES[self.objective.name].needs_masks
        if self.augment.mosaic and not masks:
            raise ValueError("augment.mosaic: only for an objective that learns from masks")

    def with_local(self, other: "Stage") -> "Stage":
        """This stage, but with what changes no result as ``other`` has it."""
        local = {f.name: getattr(other.engine, f.name) for f in fields(Engine) if not f.compare}
        return replace(self, engine=replace(self.engine, **local))

    @property
    def needs_training(self) -> bool:
        """Whether the network is of use only after a training."""
        return METHODS[self.model.name].needs_training(self.model.options)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One experiment.

    Attributes:
        exp: Where it lives.
        dataset: Which images.
        misc: Seed, device, precision.
        teacher: The teacher to train, or the folder of a trained one; ``null``: none.
        student: The student to train, after the teacher; ``null``: none.
        baseline: A published method to compare with; ``null``: none.
        command: The options file and the options over it, as they were written.
    """

    exp: Exp
    dataset: Dataset
    misc: Misc = field(default_factory=Misc)
    teacher: Stage | Path | None = None
    student: Stage | None = None
    baseline: Stage | None = None
    command: str = field(default="", compare=False, metadata=NOT_AN_OPTION)

    def __post_init__(self) -> None:
        """Checks that there is something to do, and that it can be done."""
        if not self.stages:
            raise ValueError("nothing to do: write a section 'teacher', 'student' or 'baseline'")
        if self.student is not None and self.teacher is None:
            objective = self.student.objective
            if objective is not None and OBJECTIVES[objective.name].needs_teacher:
                raise ValueError(
                    f"student.objective: {objective.name} needs a teacher: write a section "
                    "'teacher', or teacher: FOLDER of a trained one"
                )
        trained = self.baseline is not None and self.baseline.needs_training
        if trained and self.dataset.auxiliary is None:
            raise ValueError(
                "baseline: is trained on another data set: write a section dataset.auxiliary"
            )
        for name, stage in self.stages.items():
            if (
                stage.needs_training
                and stage.engine.keep == "best"
                and not self.dataset.val_fraction
            ):
                raise ValueError(
                    f"{name}: without validation images no epoch is the best: write "
                    "dataset.val_fraction, or engine.keep: last"
                )

    @property
    def stages(self) -> dict[str, Stage]:
        """The networks this run trains or tests, by name, in this order."""
        found = {name: getattr(self, name) for name in STAGES}
        return {name: stage for name, stage in found.items() if isinstance(stage, Stage)}
