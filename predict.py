"""Gives verdicts on pictures without labels.

    python predict.py logs/demo pictures/               # a folder, with the folders inside
    python predict.py logs/demo 'line3/*.jpg' --maps    # heat maps, too
    python predict.py logs/demo --show picture.jpg      # one verdict and its heat map
    python predict.py logs/demo --watch inbox/          # also what arrives, until Ctrl-C
    find . -name '*.png' | python predict.py student/best.safetensors - --json
    python predict.py options/baselines/winclip.yaml pictures/ --object fryum

MODEL is the folder of a run, a best.safetensors, a file of export.py, or the options of a zero-shot
baseline. The result is predictions/predictions.csv; the same command goes on where it was stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import run_command

UNREADABLE = 3  # exit status: done, but some pictures could not be read


def command(arguments: Sequence[str] | None) -> int:
    """Reads the command line and does the work; returns how many pictures have an error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="file, folder, pattern; - reads a list from stdin"
    )
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write to")
    parser.add_argument("--maps", action="store_true", help="write heat maps to OUT/maps")
    parser.add_argument("--show", action="store_true", help="print and draw, write no table")
    parser.add_argument("--json", action="store_true", help="print one JSON object per picture")
    parser.add_argument("--watch", action="store_true", help="wait for more pictures until Ctrl-C")
    parser.add_argument("--object", default="", help="what all pictures show")
    parser.add_argument("--threshold", type=float, help="another threshold than that of the model")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--batch-size", type=_count, default=32, metavar="N")
    parser.add_argument("--workers", type=_count, metavar="N", help="processes that decode")
    args = parser.parse_intermixed_args(arguments)
    from jobs.predicting.predicting import Request, predict
    from jobs.predicting.predictor import Predictor

    is_file = args.model.suffix in (".yaml", ".yml")
    overrides = [path for path in args.paths if is_file and "=" in path]
    predictor = Predictor.load(args.model, args.device, overrides)
    if args.threshold is not None:
        predictor = predictor.at(args.threshold)
    return predict(
        predictor,
        Request(
            paths=[path for path in args.paths if path not in overrides],
            out=args.out,
            object=args.object,
            maps=args.maps,
            show=args.show,
            json=args.json,
            watch=args.watch,
            batch_size=args.batch_size,
            num_workers=args.workers,
        ),
    )


def _count(text: str) -> int:
    if not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError("must be in [1, 4096]")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 3 pictures that cannot be read, 130."""
    errors: list[int] = []
    status = run_command(lambda: errors.append(command(arguments)))
    return status or (UNREADABLE if any(errors) else 0)


if __name__ == "__main__":
    sys.exit(main())
