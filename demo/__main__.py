"""The command that renders the demo data."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import demo
from demo import ANOMALIES, DEMO, NORMALS, OBJECTS, SIZE, write
from utils.errors import UserError, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix."""
    parser = argparse.ArgumentParser(
        description=demo.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="folder to make")
    parser.add_argument("--objects", nargs="+", default=DEMO, help=f"out of {', '.join(OBJECTS)}")
    parser.add_argument("--normals", type=int, default=NORMALS, help="images per object")
    parser.add_argument("--anomalies", type=int, default=ANOMALIES, help="images per object")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("H", "W"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    def command() -> None:
        height, width = args.size
        try:
            is_new = write(
                args.root,
                objects=args.objects,
                normals=args.normals,
                anomalies=args.anomalies,
                size=(height, width),
                seed=args.seed,
            )
        except OSError as error:
            raise UserError(f"{args.root}: cannot be written ({error.strerror})") from error
        count = len(args.objects) * (args.normals + args.anomalies)
        what = "wrote" if is_new else "already there:"
        sys.stdout.write(f"{what} {count} images of {', '.join(args.objects)} in {args.root}\n")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
