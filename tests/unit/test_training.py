"""The loop: learning rates, means, what it stops at, and that the epoch decides on every draw."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from utils.batch import Batch
from utils.device import Machine
from utils.errors import UserError
from utils.training import Epochs, fit

CPU = torch.device("cpu")


class Source:
    """Two batches of three and one image; their pixels are the numbers 1 to 4."""

    num_images = 4

    def __len__(self):
        return 2

    def epoch(self, number):
        for values in ((1, 2, 3), (4,)):
            image = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)
            names = ["a"] * len(values)
            yield Batch(image, torch.zeros(len(values), dtype=torch.long), names, names)


class Learner(nn.Module):
    """Its loss is the mean of a batch's pixels, whatever it has learned."""

    def __init__(self, loss=lambda batch: batch.image.float().mean()):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.loss, self.seen, self.draws = loss, [], []

    def forward(self, batch):
        assert self.training
        self.seen.append(optimizer_of[self].param_groups[0]["lr"])
        self.draws.append(torch.rand(()).item())
        loss = self.weight * 0 + self.loss(batch)
        return {"loss": loss, "twice": 2 * loss}


optimizer_of = {}


def run(learner, epochs=range(2), schedule=lambda epoch: epoch + 1, source=None):
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    optimizer.param_groups[0]["initial_lr"] = 0.1
    optimizer_of[learner] = optimizer
    done = []
    fit(
        learner,
        source or Source(),
        optimizer,
        schedule,
        epochs=Epochs("test", epochs, 5),
        machine=Machine(CPU, torch.float32),
        on_epoch=done.append,
    )
    return done


def test_the_rate_follows_the_schedule_step_by_step():
    learner = Learner()
    done = run(learner)
    assert learner.seen == pytest.approx([0.1, 0.15, 0.2, 0.25])
    assert [epoch.lr for epoch in done] == pytest.approx([0.15, 0.25])


def test_means_are_over_images_not_over_batches():
    done = run(Learner())
    assert [epoch.number for epoch in done] == [1, 2]
    assert done[0].losses == {"loss": (2 * 3 + 4) / 4, "twice": 5.0}
    assert done[0].images_per_second > 0


def test_an_epoch_draws_the_same_whether_others_came_before_it_or_not():
    both, second = Learner(), Learner()
    run(both)
    run(second, epochs=range(1, 2))
    assert both.draws[2:] == second.draws
    assert both.draws[:2] != both.draws[2:]


def test_a_batch_too_small_for_batchnorm_names_the_option():
    norm = nn.BatchNorm1d(1)
    learner = Learner(lambda batch: norm(batch.image.flatten(1).float()).mean())
    with pytest.raises(UserError, match=r"batch_size: 1 image .* too few for a BatchNorm"):
        run(learner)


def test_any_other_error_of_a_network_is_a_bug():
    learner = Learner(lambda batch: torch.zeros(2).view(3))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        run(learner)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step(bad):
    learner = Learner(lambda batch: torch.tensor(bad if len(batch) == 1 else 1.0))
    place = rf"the loss is {bad} in epoch 2, step 2 \(learning rate 0.25, images a\); take a"
    with pytest.raises(UserError, match=rf"{place} lower lr$"):
        run(learner, epochs=range(1, 2))


def test_the_first_bad_step_since_the_last_look_is_named():
    class Many(Source):
        def __len__(self):
            return 24

        def epoch(self, number):
            for step in range(24):
                batch = next(super().epoch(number))
                yield replace(batch, path=[f"{step}.png"] * 3)

    learner = Learner(lambda batch: torch.tensor(1.0 if int(batch.path[0][:-4]) < 13 else math.nan))
    with pytest.raises(UserError, match=r"epoch 1, step 14 .*images 13.png, 13.png, 13.png\)"):
        run(learner, epochs=range(1), source=Many())
