"""One network of an experiment: its options, its images, and the machine that trains it."""

from dataclasses import dataclass

from datasets.captions import Captions, shuffled_texts
from datasets.record import Splits
from jobs.data import Data
from jobs.run_folder import StageFolder
from options.schema import Run, Stage
from utils.device import Machine
from utils.seeding import derive


@dataclass(frozen=True)
class Job:
    """The training of one network.

    Attributes:
        run: The experiment.
        name: Name of the stage.
        splits: The data set of the experiment.
        data: The images of the training; for a baseline those of another data set.
        machine: Device and precision.
    """

    run: Run
    name: str
    splits: Splits
    data: Data
    machine: Machine

    @property
    def stage(self) -> Stage:
        """The options of the stage."""
        return self.run.stages[self.name]

    @property
    def folder(self) -> StageFolder:
        """The folder of the network."""
        return StageFolder(self.run.exp.dir / self.name, self.name)

    @property
    def captions(self) -> Captions:
        """The captions of the training images."""
        options = self.stage.captions
        # Teacher and student read the same texts, so the seed is that of the run.
        is_shuffled = options.policy == "shuffled"
        texts = shuffled_texts(self.data.train, self.run.misc.seed) if is_shuffled else None
        return Captions(options.policy, options.dropout, self.seed("data"), texts)

    def seed(self, *purpose: str) -> int:
        """A seed of this stage for one purpose."""
        return derive(self.run.misc.seed, self.name, *purpose)
