"""Learning rates against the list written out, and against PyTorch's own schedules."""

import pytest
import torch

from utils.optimizers import OPTIMIZERS, Parameters
from utils.registry import options_of
from utils.schedules import SCHEDULES


def test_the_published_rates():
    schedule = SCHEDULES["warmup_step_decay"](15)
    expected = [0.5, 1.0, 1.5, 2, 2, 2, 2, 2, 2, 2, 0.5, 0.5, 0.125, 0.125, 0.03125]
    assert [schedule(epoch) for epoch in range(15)] == pytest.approx(expected)
    assert schedule(2.9) == schedule(2)


def test_one_cycle_is_pytorchs():
    steps = 50
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps + 1)
    ours = SCHEDULES["one_cycle"](10)
    for step in range(steps + 1):
        # theirs reaches the top at 0.3 * total - 1 steps, ours at 0.3 of the training
        top = 0.3 * (steps + 1) - 1
        at = step / top * 3 if step <= top else 3 + (step - top) / (steps - top) * 7
        assert 0.1 * ours(at) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        if step < steps:
            theirs.step()


def test_cosine_is_pytorchs():
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=0.1)
    ours = SCHEDULES["cosine"](10, warmup_epochs=2.0, floor=0.1)
    assert [ours(0), ours(1), ours(2)] == pytest.approx([0, 0.5, 1])
    for epoch in range(9):
        assert ours(2 + epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("epochs", [2, 15])
def test_every_schedule_is_positive_within_the_training(name, epochs):
    schedule = SCHEDULES[name](epochs)
    assert all(schedule(epochs * i / 100) >= 0 for i in range(101))
    assert any(schedule(epochs * i / 100) > 0.4 for i in range(101))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("one_cycle", {"warmup": 1.0}, r"warmup must be in \(0, 1\), got 1.0"),
        ("one_cycle", {"start_divisor": 0.5}, "must be at least 1"),
        ("cosine", {"floor": 2.0}, r"floor must be in \[0, 1\], got 2.0"),
        ("cosine", {"warmup_epochs": 5.0}, r"warmup_epochs \(5.0\) must be less than epochs \(5\)"),
        (
            "warmup_step_decay",
            {"warmup_epochs": 0},
            r"warmup_epochs must be in \[1, 1000000\], got 0",
        ),
    ],
)
def test_schedule_options_are_checked(name, options, message):
    with pytest.raises(ValueError, match=message):
        SCHEDULES[name](5, **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains_two_groups_at_their_own_rates(name):
    defaults = {k: p.default for k, p in options_of(OPTIMIZERS[name]).items()}
    encoder, head = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    frozen = torch.nn.Linear(3, 3).requires_grad_(False)
    optimizer = OPTIMIZERS[name](
        Parameters({1.0: [*encoder.parameters(), *frozen.parameters()]}, head.parameters()),
        **{**defaults, "lr": 1e-3, "head_lr": 1e-2},
    )
    assert [g["lr"] for g in optimizer.param_groups] == [1e-3, 1e-2]
    assert [g["initial_lr"] for g in optimizer.param_groups] == [1e-3, 1e-2]
    before = [p.clone() for p in (*encoder.parameters(), *head.parameters())]
    head(encoder(torch.randn(4, 3))).square().sum().backward()
    optimizer.step()
    after = [*encoder.parameters(), *head.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {"betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
        ("AdamW", {"betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
        ("Adamax", {"betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
        ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ],
)
def test_an_optimizer_is_torchs_with_torchs_defaults(name, options):
    parameter = torch.nn.Parameter(torch.zeros(1))
    ours, theirs = OPTIMIZERS[name], getattr(torch.optim, name)
    for chosen in ({}, options):
        made = ours(Parameters({1.0: [parameter]}, []), **chosen)
        wanted = theirs([parameter], **chosen)
        assert type(made) is type(wanted)
        (group,), (expected,) = made.param_groups, wanted.param_groups
        assert {k: group[k] for k in expected if k != "fused"} == {
            k: v for k, v in expected.items() if k != "fused"
        }
    assert set(options_of(ours)) == {"lr", "head_lr", *options}


@pytest.mark.parametrize(("head_lr", "rate"), [(None, 0.5), (0.0, 0.0)])
def test_without_a_rate_of_its_own_the_head_learns_at_lr(head_lr, rate):
    encoder, head = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = OPTIMIZERS["Adamax"](Parameters({1.0: [encoder]}, [head]), lr=0.5, head_lr=head_lr)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, rate]
