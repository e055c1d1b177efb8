"""What makes training fast leaves its losses as they are: against the released recipe's way."""

import pytest
import torch

from benchmarks.released import ReleasedBatches, released
from benchmarks.training import Noting, Timed, ours
from jobs.build import build_optimizer, build_schedule
from options.load import load
from tests.fixtures import job_of
from utils.device import Machine
from utils.training import Epochs, fit

CPU = Machine(torch.device("cpu"), torch.float32)
OPTIONS = (
    "image={size: 96, resize: center_crop}",
    "optimizer={name: Adamax, lr: 7e-4}",
    "student.augment.horizontal_flip=0",
    "student.objective.feature_weight=0",
)


def losses(run, name, build):
    job = job_of(run, name, CPU)
    learner, *_, batches = build(job)
    noting = Noting(learner)
    fit(
        noting,
        Timed(batches, 10),
        build_optimizer(job.stage, learner),
        build_schedule(job.stage),
        epochs=Epochs(name, (0,) * 4, 0),
        machine=CPU,
        on_epoch=lambda _: None,
    )
    return noting.losses


@pytest.mark.parametrize("name", ["teacher", "student"])
@pytest.mark.slow
def test_the_losses_are_those_of_the_released_way(smoke, tmp_path, monkeypatch, name):
    """Decoded each time, 77 positions, a live teacher and channels first; or none of these."""
    monkeypatch.setattr(ReleasedBatches, "num_workers", 0)
    run = load(smoke / "smoke.yaml", [*OPTIONS, f"dataset.cache={tmp_path}/cache"])
    # In fp32 two roundings of the same training drift apart: Adamax begins with signs.
    expected = losses(run, name, lambda job: released(job, torch.float64))
    found = losses(run, name, lambda job: ours(job, {}, torch.float64))
    assert len(expected) >= 10
    assert found == pytest.approx(expected, rel=1e-5)
