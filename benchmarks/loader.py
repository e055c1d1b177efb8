"""Loading: pictures per second out of the cache and decoded anew, by number of loader processes.

python -m benchmarks.loader [--quick]
"""

import argparse
import itertools
from collections.abc import Sequence

from benchmarks.common import (
    RawText,
    alternated,
    job_of,
    pictures,
    published_recipe,
    report,
    seconds,
)
from jobs.build import training_batches
from utils.device import Machine

WORKERS = (0, 1, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="under five minutes on two cores")
    args = parser.parse_args(arguments)
    count, rounds = (60, 3) if args.quick else (240, 5)
    jobs = {}
    with pictures(count) as root:
        for workers, cache in itertools.product(WORKERS, ("cached", "decoded")):
            run = published_recipe(
                root, f"engine.num_workers={workers}", is_cached=cache == "cached"
            )
            job = job_of(run, "student", Machine.choose("cpu", "fp32"))
            batches = training_batches(job)
            list(batches.epoch(0))  # starts the processes, and brings the files into memory
            jobs[f"{cache}_{workers}"] = lambda batches=batches: (
                seconds(lambda: list(batches.epoch(1))) / batches.num_images
            )
        times, _ = alternated(jobs, rounds)
    lines = ["| loader processes | decoded, images/s | cached, images/s | x |", "|--:|--:|--:|--:|"]
    for workers in WORKERS:
        decoded, cached = times[f"decoded_{workers}"], times[f"cached_{workers}"]
        lines.append(
            f"| {workers} | {1 / decoded:.0f} | {1 / cached:.0f} | {decoded / cached:.1f} |"
        )
    speedup = times["decoded_0"] / times["cached_0"]
    report(lines, {"cached_over_decoded": speedup, "seconds_per_image": times})


if __name__ == "__main__":
    main()
