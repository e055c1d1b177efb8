"""Lists or removes the cache of this program: decoded images, outputs of teachers and others.

    python cache.py --list
    python cache.py --clear --dir FOLDER

Only files of this program are removed. They are made again when they are needed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError, run_command


def command(arguments: Sequence[str] | None) -> None:
    """Reads the command line and does the work."""
    from utils.store import FOLDER, Store

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="show the files")
    what.add_argument("--clear", action="store_true", help="remove the files")
    parser.add_argument("--dir", type=Path, default=FOLDER, help=f"their folder: {FOLDER}")
    args = parser.parse_args(arguments)

    store = Store(args.dir)
    try:
        if args.list:
            sys.stdout.writelines(f"{line}\n" for line in store.lines())
        else:
            count, nbytes = store.clear()
            left = len(list(args.dir.iterdir())) if args.dir.exists() else 0
            others = f"; {left} others are left" if left else ""
            sys.stdout.write(f"{args.dir}: removed {count} files, {nbytes / 1e9:.3f} GB{others}\n")
    except OSError as error:
        raise UserError(f"{args.dir}: cannot be read ({error.strerror})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 or 143 interrupted."""
    return run_command(lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
