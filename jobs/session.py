"""An experiment under test: its test images, its networks, and the origin of its figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from datasets.captions import Captions, Policy
from datasets.image_text import Batches
from datasets.record import Record, Splits, data_hash
from jobs.build import build_model, evaluation_batches, load_model
from jobs.checking import say_pixels
from jobs.data import image_store, read_data, read_tested, resolved, store_of
from jobs.experiments import of_objects
from jobs.run_folder import StageFolder
from jobs.scoring import score_all
from models.base import AnomalyModel
from models.methods import METHODS
from options.schema import Dataset, Run, Stage
from utils.console import say
from utils.device import Machine
from utils.errors import UserError
from utils.pixel_evaluation import PixelFigures
from utils.provenance import environment
from utils.ranks import WHOLE, Share, is_main, main_first
from utils.seeding import derive, generator
from utils.verdicts import Verdicts


@dataclass(frozen=True)
class Network:
    """A network that can be tested.

    Attributes:
        model: In eval mode.
        stage: The options it was built with.
        title: Its title in tables.
        verdicts: Its threshold and calibration; ``None``: it has none.
    """

    model: AnomalyModel
    stage: Stage
    title: str
    verdicts: Verdicts | None = None

    def titled(self, suffix: str) -> "Network":
        """The same network with ``suffix`` at the end of its title."""
        return replace(self, title=self.title + suffix)


@dataclass(frozen=True)
class Session:
    """One experiment under test.

    Attributes:
        run: The experiment.
        splits: Its images.
        machine: Device and precision.
        program: The command and its flags, for captions: ``test.py --maps``.
    """

    run: Run
    splits: Splits
    machine: Machine
    program: str = "test.py"

    @classmethod
    def of(cls, run: Run, machine: Machine, program: str) -> "Session":
        """The experiment with its images.

        Raises:
            UserError: As the reader, or if there are no test images.
        """
        with main_first():  # the others find in the cache what the files hold
            splits = read_tested(run.dataset, store_of(run), run.exp.dir)
            run = resolved(run, splits)
            if is_main() and not any(stage.needs_training for stage in run.stages.values()):
                say_pixels(run, splits["test"])
        return cls(run, splits, machine, program)

    def of_objects(self) -> list["Session"]:
        """This session, or with ``dataset.per_object`` one for each object with test images."""
        sessions = []
        for run, splits in of_objects(self.run, self.splits):
            if splits["test"]:
                sessions.append(replace(self, run=run, splits=splits))
            else:
                say(f"{', '.join(run.dataset.objects)}: left out: it has no test images")
        return sessions

    @property
    def about(self) -> dict[str, Any]:
        """The origin of the figures of this session, for the captions of tables."""
        dataset = self.run.dataset
        return {
            "data": data_hash(self.splits),
            "split": " ".join(filter(None, (dataset.name, dataset.split, _tested(dataset)))),
            "held out": ", ".join((*dataset.hold_out, *dataset.hold_out_defects)),
            "given back": _given_back(dataset.hold_out_anomalies),
            "seed": self.run.misc.seed,
            "command": f"python {self.program} {self.run.command}",
            "precision": str(self.machine),
            **environment(self.machine.device),
        }

    def network(self, name: str) -> Network:
        """The network of a stage: trained, or of a kind that needs no training.

        Raises:
            UserError: If it is not trained, was trained with other options or on test images, or if
                its weights cannot be loaded.
        """
        run, stage = self.run, self.run.stages[name]
        if not stage.needs_training:
            return self.untrained(name)
        folder = StageFolder(run.exp.dir / name, name)
        if not folder.best.is_file():
            raise UserError(
                f"{folder.path}: nothing is trained yet; first: python run.py {run.command}"
                + _released(name, stage)
            )
        if name == "baseline" and _may_overlap(run):
            read_data(run, name, self.splits)  # refuses images that it was trained on
        folder.check(run, {"data": data_hash(self.splits)} if name != "baseline" else {})
        folder.check_unseen(run, self.splits)
        model, trained, _ = load_model(folder.best, stage)
        model.store = store_of(run)
        done, title = folder.num_epochs(), trained.model.name
        if done is not None and done < stage.engine.epochs:
            title += f", UNFINISHED ({done} of {stage.engine.epochs} epochs)"
        return Network(model, trained, title, Verdicts.of(folder.best))

    def untrained(self, name: str) -> Network:
        """The network of a stage before any training."""
        stage = self.run.stages[name]
        if stage.normal_only:
            raise UserError(f"{name}: {stage.model.name} gives no scores before its training")
        model = build_model(self.run, name).eval()
        if stage.needs_training:
            return Network(model, stage, f"{stage.model.name}, untrained")
        shots = model.num_references
        references = "reference" if shots == 1 else "references"
        how = f"{shots} normal {references} per object" if shots else "zero-shot"
        return Network(model, stage, f"{stage.model.name}, {how}")

    def batches(
        self,
        network: Network,
        records: Sequence[Record],
        *,
        captions: Captions | None = None,
        with_masks: bool = False,
        part: Share | None = None,
    ) -> Batches:
        """Images of this experiment in a network's view; see :func:`evaluation_batches`."""
        return evaluation_batches(
            image_store(self.run, self.splits),
            network.stage,
            records,
            self.machine.device,
            captions=captions,
            with_masks=with_masks,
            part=part,
        )

    def scores(
        self, network: Network, *, policy: Policy = "object", pixels: PixelFigures | None = None
    ) -> pd.DataFrame:
        """Scores of all test images.

        Args:
            network: The network; its normal references are drawn here if it needs some.
            policy: The captions for a network that reads text.
            pixels: Gets the anomaly maps of this process's images; ``None``: no map is computed.

        Returns:
            One row per image, as :func:`utils.evaluation.score_images`.

        Raises:
            UserError: If a picture cannot be read, or an object has too few normal images.
        """
        self.machine.place(network.model)
        if network.model.num_references:
            self.show_references(network)
        batches = self.batches(
            network,
            self.splits["test"],
            captions=Captions(policy, 0.0, 0),
            with_masks=pixels is not None,
        )
        return score_all(network.model, batches, self.machine, pixels)

    @torch.inference_mode()
    def show_references(self, network: Network) -> None:
        """Shows a network its normal references: drawn by the seed, the same number per object.

        Raises:
            UserError: If an object has too few normal training images.
        """
        network.model.eval()
        chosen = [record for part in self._references(network) for record in part]
        # Each process compares its images with all references, not with a share of them.
        for batch in self.batches(network, chosen, part=WHOLE):
            with self.machine.autocast():
                network.model.remember(batch.to(self.machine.device))

    def _references(self, network: Network) -> Iterator[list[Record]]:
        count = network.model.num_references
        for name in dict.fromkeys(record.object for record in self.splits["test"]):
            normal = [r for r in self.splits["train"] if r.object == name and not r.label]
            if len(normal) < count:
                raise UserError(
                    f"{network.stage.model.name}: shots is {count}, but {name} has {len(normal)} "
                    "normal training images"
                )
            random = generator(derive(self.run.misc.seed, "references", name))
            order = torch.randperm(len(normal), generator=random)
            yield [normal[i] for i in order[:count].tolist()]


def _tested(dataset: Dataset) -> str:
    """Which of the images are tested."""
    if dataset.fold is None:
        return "test"
    number, count = dataset.fold
    return f"training images, fold {number} of {count}"


def _given_back(count: int | None) -> str:
    """How much of the held-out objects was trained on; empty: nothing."""
    return "" if count is None else f"normal images and {count} anomalous ones of each"


def _may_overlap(run: Run) -> bool:
    """Whether one of the folders of data set and auxiliary data is inside the other."""
    if run.dataset.auxiliary is None:
        return False
    one, other = run.dataset.dir.resolve(), run.dataset.auxiliary.dir.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _released(name: str, stage: Stage) -> str:
    """A hint for methods whose authors published weights: they can be tested untrained."""
    weights = METHODS[stage.model.name].released_as
    return (
        f"; or use its authors' weights: {name}.model.released=FILE ({weights})" if weights else ""
    )
