"""Both jobs for several seeds, and what the seeds say together."""

from collections.abc import Sequence
from dataclasses import replace

from jobs.testing import Report, evaluate
from jobs.training.training import train
from options.schema import Run
from utils.console import say
from utils.device import Machine
from utils.errors import UserError
from utils.ranks import is_main, joined
from utils.tables import write_seed_tables


def runs_of(run: Run, count: int) -> Sequence[Run]:
    """The same experiment ``count`` times, with ``misc.seed`` and the numbers that follow it.

    A teacher named by its folder is the same one for all of them.

    Args:
        run: The experiment.
        count: How often; at least 1.

    Returns:
        One experiment per seed, each in ``<exp.dir>/seed_<seed>``.

    Raises:
        UserError: If ``count`` is below 1.
    """
    if count < 1:
        raise UserError(f"--seeds: must be at least 1, got {count}")
    return [
        replace(
            run,
            exp=replace(run.exp, dir=run.exp.dir / f"seed_{seed}"),
            misc=replace(run.misc, seed=seed),
        )
        for seed in range(run.misc.seed, run.misc.seed + count)
    ]


def train_seeds(run: Run, count: int) -> None:
    """Trains what is missing of each seed.

    Raises:
        UserError: As :func:`jobs.training.training.train`.
    """
    runs = runs_of(run, count)
    with joined(Machine.choose(run.misc.device, run.misc.precision).device):
        for one in runs:
            say(f"seed {one.misc.seed}: {one.exp.dir}")
            train(one)


def evaluate_seeds(
    run: Run,
    source: str,
    count: int,
    *,
    oracle_text: bool = False,
    untrained: bool = False,
    maps: bool = False,
) -> None:
    """Scores each seed, then writes ``<exp.dir>/<stage>_seeds.{md,csv,json}``.

    Args:
        run: The experiment.
        source: The options as the user wrote them.
        count: Number of seeds.
        oracle_text: Also score the teachers with the true captions.
        untrained: Score the networks as they are before their training instead.
        maps: Also make anomaly maps and compare them with the masks.

    Raises:
        UserError: As :func:`jobs.testing.evaluate`, for instance if a seed is not trained.
    """
    runs = runs_of(run, count)
    source = f"{source} --seeds {count}"
    with joined(Machine.choose(run.misc.device, run.misc.precision).device):
        found = [
            evaluate(one, source, oracle_text=oracle_text, untrained=untrained, maps=maps)
            for one in runs
        ]
    for reports in zip(*found, strict=True):
        if is_main():
            _together(run, [one.misc.seed for one in runs], reports)


def _together(run: Run, seeds: Sequence[int], reports: Sequence[Report]) -> None:
    first = reports[0]
    name = "_".join(first.folder.relative_to(run.exp.dir / f"seed_{seeds[0]}").parts)
    about = {**first.about, "seed": " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))}
    title = "; ".join(dict.fromkeys(report.title for report in reports))
    tables = {seed: report.table for seed, report in zip(seeds, reports, strict=True)}
    text = write_seed_tables(run.exp.dir / f"{name}_seeds", title, tables, about)
    say(f"\n{text}\n{run.exp.dir}: {name}_seeds.md, {name}_seeds.csv, {name}_seeds.json")
