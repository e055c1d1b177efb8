"""The options of an experiment: everything that an options file can set."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from datasets.augment import Augment
from datasets.captions import Policy
from datasets.image import MAX_PIXELS, MaskResize, PixelRange, Resize, View
from datasets.image_text import SAMPLERS
from datasets.readers import DATASETS
from models.classifiers import CLASSIFIERS
from models.methods import METHODS
from models.objectives import OBJECTIVES
from utils.optimizers import OPTIMIZERS
from utils.ranges import BelowOne, Count, Probability, Range
from utils.registry import INLINE, NOT_AN_OPTION, Component
from utils.schedules import SCHEDULES
from utils.store import FOLDER

Side = Annotated[int, Range(1, 100_000)]
SEEDS = Range(1, 1_000)  # how many runs of one experiment
FOLDS = Range(2, 100)  # of a cross-validation
STAGES = ("teacher", "student", "baseline")
GUIDES = ("attention_weight", "words_weight", "mask_weight")  # of objectives: need places


@dataclass(frozen=True, kw_only=True)
class Exp:
    """Where the results are written.

    Attributes:
        dir: Folder for all results; each stage has its own folder in it.
        resume: What happens if the folder holds a run already. ``same_options``: the run is
            resumed, or used if it is finished, but only if its options are the same;
            ``any_options``: it is resumed or used, whatever its options; ``never``: an error.
    """

    dir: Path = field(compare=False)
    resume: Literal["same_options", "any_options", "never"] = field(
        default="same_options", compare=False
    )


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set.

    Attributes:
        reader: The reader of its layout; the reader's own options stand beside it.
        dir: Folder of the data.
        leave_out: A list of images that are left out, as ``check.py --fix-list FILE`` writes it.
        skip_broken: Whether images are left out that cannot be read, or whose masks cannot. A run
            keeps the list in ``<exp.dir>/broken_images.txt``, for later commands.
        max_pixels: Pixels of a picture above which it is refused as a decompression bomb. While it
            is checked, a picture takes up to 10 bytes a pixel.
    """

    reader: Annotated[Component, DATASETS] = field(metadata=INLINE)
    dir: Path = field(compare=False)
    leave_out: Path | None = field(default=None, compare=False)
    skip_broken: bool = field(default=False, compare=False)
    max_pixels: Annotated[int, Range(MAX_PIXELS, 4_000_000_000)] = field(
        default=MAX_PIXELS, compare=False
    )

    @property
    def name(self) -> str:
        """The reader's name."""
        return self.reader.name

    @property
    def split(self) -> str:
        """Name of the split; empty if the data set has only one."""
        return str(self.reader.options.get("split", ""))

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects; empty: all."""
        chosen: tuple[str, ...] = self.reader.options["objects"]
        return chosen

    def with_reader(self, **options: Any) -> Self:
        """The same data set with other options of its reader."""
        reader = replace(self.reader, options={**self.reader.options, **options})
        return replace(self, reader=reader)


@dataclass(frozen=True, kw_only=True)
class Selection(Source):
    """A data set of which not everything is trained on.

    Attributes:
        reader: The reader of its layout; the reader's own options stand beside it.
        dir: Folder of the data.
        leave_out: A list of images that are left out, as ``check.py --fix-list FILE`` writes it.
        skip_broken: Whether images are left out that cannot be read.
        max_pixels: See :class:`Dataset`, like those that follow.
        max_anomalies: Anomalous training images of each object.
        hold_out: Objects that are not trained on.
        hold_out_anomalies: Anomalous images of these objects that are trained on after all.
        hold_out_defects: Kinds of defect that are not trained on.
        fold: The part of the training images that is tested.
    """

    max_anomalies: Count | None = None
    hold_out: tuple[str, ...] = ()
    hold_out_anomalies: Annotated[int, Range(0, 1_000_000)] | None = None
    hold_out_defects: tuple[str, ...] = ()
    fold: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Checks that there is such a fold, and that nothing else chooses the test images."""
        if self.hold_out_anomalies is not None and not self.hold_out:
            raise ValueError("hold_out_anomalies: write hold_out, the objects that it is about")
        if self.fold and not (1 <= self.fold[0] <= self.fold[1] and self.fold[1] in FOLDS):
            raise ValueError(
                f"fold: must be [number, of how many], as in [1, 5], got {[*self.fold]}"
            )
        if self.fold and (self.hold_out or self.hold_out_defects):
            raise ValueError("fold: tests training images; remove hold_out and hold_out_defects")


@dataclass(frozen=True, kw_only=True)
class Dataset(Selection):
    """The images.

    Attributes:
        reader: The reader of the data set's layout; the reader's own options stand beside it.
        dir: Folder of the data.
        leave_out: A list of images that are left out, as ``check.py --fix-list FILE`` writes it.
        skip_broken: Whether images are left out that cannot be read, or whose masks cannot. A run
            keeps the list in ``<exp.dir>/broken_images.txt``, for later commands.
        max_pixels: Pixels of a picture above which it is refused as a decompression bomb. While it
            is checked, a picture takes up to 10 bytes a pixel.
        per_object: Whether each object has its own networks, in ``<exp.dir>/<object>``.
        hold_out: Objects that are not trained on; only these are tested then.
        hold_out_anomalies: Number of anomalous images of each of these objects that are trained on
            after all, drawn by ``misc.seed``: the 1 is among the 5; with its normal training
            images, and the same test images. ``null``: it is not trained on at all.
        hold_out_defects: Kinds of defect that are not trained on; only these, and normal images,
            are tested then. Images with one of these and another defect are left out.
        max_anomalies: Number of anomalous training images of each object, validation images
            included, drawn by ``misc.seed``: the 5 are among the 10, and the test images stay the
            same. ``null``: all.
        fold: ``[1, 5]``: for cross-validation, the first of five parts of the training images is
            tested, by the network that is trained on the four others; the test images of the
            data set take no part. Stratified by object and label, the same parts for each seed.
            All five, with one table: ``folds`` of a comparison. ``null``: the test images.
        val_fraction: Share of the training images that choose the checkpoint and are not trained
            on, stratified by object and label; 0: none, which needs ``engine.keep: last``.
        auxiliary: The data set that a baseline is trained on; none of its images is tested.
        cache: Folder for decoded images, which are decoded once for all epochs and runs; ``null``:
            nothing is kept, and images are decoded each time. ``python cache.py --list`` shows
            what is kept, ``--clear`` removes it.
        cache_gb: Size limit of that folder in gigabytes (10^9 bytes); the longest unused images are
            removed first. The images of one run have to fit.
        allow_leak: Training images whose copies may be test images: paths as ``python check.py``
            prints them, patterns with ``*``, or ``all``.
    """

    per_object: bool = False
    val_fraction: BelowOne = 0.2
    auxiliary: Source | None = None
    cache: Path | None = field(default=FOLDER, compare=False)
    cache_gb: Annotated[float, Range(0, 1_000_000, "(]")] = field(default=100.0, compare=False)
    allow_leak: Literal["all"] | tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Checks that objects are not held out of networks that see one object each."""
        super().__post_init__()
        if self.per_object and self.hold_out:
            raise ValueError("per_object: each network sees one object only; remove hold_out")


@dataclass(frozen=True, kw_only=True)
class Image:
    """How a picture becomes the input of the network.

    Attributes:
        size: Side in pixels, or ``[height, width]``.
        resize: ``full``: the whole picture, stretched; ``pad``: the whole picture in its own
            proportions, with black borders; ``center_crop``: without the ends of the longer side,
            as in the released code; ``tiles``: overlapping squares side by side, for ``winclip``.
        mask_resize: ``area``: a pixel of a mask is anomalous if half of it is, and thin regions are
            kept; ``bilinear``: as VAND, AnomalyCLIP and Accurate-WinCLIP do: thin regions vanish.
        range: Black and white of gray pictures of more than 8 bits. ``type``: 0 and 65,535;
            ``data``: found on the training images and stored with the model; or two numbers,
            ``[black, white]``. What lies outside is cut off.
    """

    size: Side | tuple[Side, Side] = 224
    resize: Resize = "full"
    mask_resize: MaskResize = "area"
    range: PixelRange = "type"

    def __post_init__(self) -> None:
        """Checks that white is above black."""
        if isinstance(self.range, tuple) and not self.range[0] < self.range[1]:
            raise ValueError(f"range: white must be above black, got {list(self.range)}")

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def view(self) -> View:
        """The function from a picture to the input of the network."""
        levels = self.range if isinstance(self.range, tuple) else None
        return View(self.height_width, self.resize, levels)


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """The text that the teacher reads, in its own training and in that of the student.

    Attributes:
        policy: ``label``: the name of the defect, or ``normal``; ``sentence``: an English sentence
            about it; ``object``: only the name of the object; ``shuffled``: as ``sentence``, but
            with the defect of another anomalous image of the object, as a control.
        dropout: Probability of the ``object`` caption instead, so that the teacher has to use the
            image.
    """

    policy: Policy = "sentence"
    dropout: Probability = 0.5


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the training runs.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per step.
        eval_batch_size: Images per step in validation and test; it does not change scores.
        sampler: Order of the training images: ``shuffle``, or ``balanced``: both labels equally
            often.
        keep: The weights that are kept: those of the ``best`` epoch on the validation images, or
            of the ``last``.
        num_workers: Number of loader processes; 0: none, ``null``: chosen for the machine.
        compile: Whether the network is compiled with ``torch.compile``. This needs a C++ compiler,
            or Triton on GPUs, and a minute; on CPUs it does not make a training step faster.
        pixels_on_device: Whether all decoded images are kept in the memory of each device.
        targets: When the teacher computes its targets for the student. ``once``: once for each
            image, with one caption, before the training; ``live``: at every step, with the caption
            of the epoch.
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
class Rule:
    """How the threshold is chosen on the validation images: exactly one of these.

    Attributes:
        max_false_alarms: The lowest threshold at which at most this share of the normal images is
            called anomalous (overkill).
        max_misses: The highest threshold at which at most this share of the anomalous images is
            called normal (escape).
        value: This score, whatever the images say.
    """

    max_false_alarms: Probability | None = None
    max_misses: Probability | None = None
    value: Probability | None = None

    def __post_init__(self) -> None:
        """Checks that one of them is chosen."""
        if sum(value is not None for value in vars(self).values()) != 1:
            raise ValueError(f"write one of {', '.join(vars(self))}")

    @property
    def chosen(self) -> tuple[str, float]:
        """Name and number of the one that is chosen."""
        return next((name, value) for name, value in vars(self).items() if value is not None)


@dataclass(frozen=True, kw_only=True)
class ThresholdOptions:
    """The score from which an image is called anomalous; found on the validation images.

    Changing it needs no new training: ``run.py`` finds the threshold of a finished network again.

    Attributes:
        rule: ``f1_max``: the threshold with the highest F1; ``auto``: the same or, without
            anomalous validation images, ``max_false_alarms: 0.05``; or a block with one limit.
        per_object: Whether each object has a threshold of its own.
        unsure: Band of doubt around the threshold, in which the verdict is ``unsure``:
            ``[low, high]``, or the share of the validation images that may lie in it; 0: none.
    """

    rule: Literal["auto", "f1_max"] | Rule = "auto"
    per_object: bool = False
    unsure: BelowOne | tuple[Probability, Probability] = 0.0

    def __post_init__(self) -> None:
        """Checks that the band begins before it ends."""
        if isinstance(self.unsure, tuple) and self.unsure[0] > self.unsure[1]:
            raise ValueError("unsure: low must not be above high")


@dataclass(frozen=True, kw_only=True)
class Misc:
    """Seed, device and precision.

    Attributes:
        seed: Seed of every random choice.
        device: ``auto``: cuda if there is one, otherwise mps, otherwise cpu.
        precision: Number format of the networks' computations; losses and scores are always fp32.
            ``auto``: bf16 if the hardware has fast units for it, otherwise fp32.
    """

    seed: int = 1204
    device: Literal["auto", "cpu", "cuda", "mps"] = field(default="auto", compare=False)
    precision: Literal["auto", "fp32", "bf16"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One network and its training. A section at the top of a file is the default of each stage.

    A network that is not trained, or not by gradients, needs no objective, optimizer and schedule.

    Attributes:
        model: The network.
        image: How a picture becomes its input.
        augment: Random changes of its training images.
        captions: The text that the teacher reads.
        objective: The loss that is minimized.
        optimizer: How the parameters are changed by their gradients.
        schedule: How the learning rate changes.
        engine: How the training runs.
        threshold: The score from which an image is called anomalous.
    """

    model: Annotated[Component, METHODS]
    objective: Annotated[Component | None, OBJECTIVES] = None
    optimizer: Annotated[Component | None, OPTIMIZERS] = None
    schedule: Annotated[Component | None, SCHEDULES] = None
    image: Image = field(default_factory=Image)
    augment: Augment = field(default_factory=Augment)
    captions: CaptionOptions = field(default_factory=CaptionOptions)
    engine: Engine = field(default_factory=Engine)
    threshold: ThresholdOptions = field(default_factory=ThresholdOptions, compare=False)

    def __post_init__(self) -> None:
        """Checks that a network that is trained has all that a training needs."""
        if self.normal_only:
            self._check_one_pass()
        by_gradients = self.needs_training and not self.normal_only
        for name in ("objective", "optimizer", "schedule") if by_gradients else ():
            if getattr(self, name) is None:
                raise ValueError(f"missing option {name!r}; {self.model.name} has to be trained")
        if self.objective is not None:
            self._check_guidance(self.objective)

    def _check_guidance(self, objective: Component) -> None:
        """Checks that what guides the training can reach the network and its images."""
        kind, options = OBJECTIVES[objective.name], objective.options
        if self.augment.mosaic and not kind.needs_masks(options):
            raise ValueError("augment.mosaic: needs an objective that learns from masks")
        guides = [name for name in GUIDES if options.get(name)]
        classif = self.model.options.get("classif")
        if guides and not (classif and CLASSIFIERS[classif.name].of_places):
            raise ValueError(f"objective.{guides[0]}: needs classif: patches, a map of places")
        if {"attention_weight", "words_weight"} & {*guides} and self.engine.targets == "live":
            raise ValueError(f"objective.{guides[0]}: needs engine.targets: once")
        if "attention_weight" in guides and self.augment.moves:
            raise ValueError(
                f"augment.{self.augment.moves[0]}: moves the image, but not the teacher's "
                "attention, which is computed once; set it to its default, or "
                "objective.attention_weight to 0"
            )

    def _check_one_pass(self) -> None:
        if (self.engine.epochs, self.engine.keep, self.augment) != (1, "last", Augment()):
            raise ValueError(
                f"{self.model.name}: takes each image once, as it is; write engine.epochs: 1, "
                "engine.keep: last and no augment"
            )

    def with_local(self, other: "Stage") -> "Stage":
        """This stage with those engine options of ``other`` that change no result."""
        local = {f.name: getattr(other.engine, f.name) for f in fields(Engine) if not f.compare}
        return replace(self, engine=replace(self.engine, **local))

    @property
    def needs_training(self) -> bool:
        """Whether the network has to be trained before it is used."""
        return METHODS[self.model.name].needs_training(self.model.options)

    @property
    def normal_only(self) -> bool:
        """Whether the network learns from normal images alone, in one pass."""
        return METHODS[self.model.name].normal_only


@dataclass(frozen=True, kw_only=True)
class Run:
    """One experiment.

    Attributes:
        exp: Where the results are written.
        dataset: The images.
        misc: Seed, device, precision.
        teacher: The teacher to train, or the folder of a trained one; ``null``: none.
        student: The student to train, after the teacher; ``null``: none.
        baseline: A published method to compare with; ``null``: none.
        command: The options file and the overrides, as they stand on the command line.
    """

    exp: Exp
    dataset: Dataset
    misc: Misc = field(default_factory=Misc)
    teacher: Stage | Path | None = None
    student: Stage | None = None
    baseline: Stage | None = None
    command: str = field(default="", compare=False, metadata=NOT_AN_OPTION)

    def __post_init__(self) -> None:
        """Checks that there is a stage, and that each has the data and the teacher it needs."""
        if not self.stages:
            raise ValueError("nothing to do: write a section 'teacher', 'student' or 'baseline'")
        if self.student is not None and self.teacher is None:
            objective = self.student.objective
            if objective is not None and OBJECTIVES[objective.name].needs_teacher:
                raise ValueError(
                    f"student.objective: {objective.name} needs a teacher; write a section "
                    "'teacher', or teacher: FOLDER of a trained one"
                )
        trained = self.baseline is not None and self.baseline.needs_training
        if trained and self.dataset.auxiliary is None:
            raise ValueError(
                "baseline: is trained on another data set; write a section dataset.auxiliary"
            )
        for name, stage in self.stages.items():
            if stage.normal_only and name != "student":
                raise ValueError(
                    f"{name}: {stage.model.name} learns from the data set itself; write it as "
                    "'student'"
                )
            if (
                stage.needs_training
                and stage.engine.keep == "best"
                and not self.dataset.val_fraction
            ):
                raise ValueError(
                    f"{name}: without validation images no epoch can be chosen as the best; write "
                    "dataset.val_fraction, or engine.keep: last"
                )

    @property
    def stages(self) -> dict[str, Stage]:
        """The networks that are trained or tested, by name, in this order."""
        stages = {name: getattr(self, name) for name in STAGES}
        return {name: stage for name, stage in stages.items() if isinstance(stage, Stage)}
