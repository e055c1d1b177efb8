"""The command line that all programs share: an options file and ``a.b=value`` arguments.

Modules that import PyTorch are imported in functions, so that ``--help``, wrong arguments and
unreadable files are answered at once.
"""

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    from options.comparison_file import Comparison
    from options.schema import Run

DEFAULT = Path("options/KDstudent.yaml")
DEFAULT_COMPARISON = Path("options/comparison/visa.yaml")


def options_parser(description: str | None, default: Path = DEFAULT) -> argparse.ArgumentParser:
    """A parser for ``[FILE] [a.b=value ...]``; a program may add flags of its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config", type=Path, help="the same as naming FILE")
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="FILE | a.b=value",
        help=f"options file (default: {default}), and options that override it",
    )
    return parser


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Adds ``--seeds N`` to a program that works for several seeds."""
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="run for misc.seed and the next N - 1 seeds, each in <exp.dir>/seed_<seed>",
    )


def add_old_compare(parser: argparse.ArgumentParser) -> None:
    """Adds the former flag ``--compare``; :func:`run_from` names the new command."""
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)


def file_and_overrides(args: argparse.Namespace, default: Path) -> tuple[Path, list[str]]:
    """The file that a command line names, and the options that override it.

    Raises:
        UserError: If two files are named.
    """
    overrides = [text for text in args.arguments if "=" in text]
    files = [Path(text) for text in args.arguments if "=" not in text]
    files += [args.config] if args.config else []
    if len(files) > 1:
        raise UserError(
            f"{files[1]}: only one options file is allowed, and {files[0]} is the first"
        )
    return (files[0] if files else default), overrides


def run_from(args: argparse.Namespace) -> "Run":
    """The run that a command line describes.

    Raises:
        UserError: If an option is wrong, or two files are named.
    """
    from options.yaml_text import read

    is_comparison = getattr(args, "compare", False)
    file, overrides = file_and_overrides(args, DEFAULT_COMPARISON if is_comparison else DEFAULT)
    if is_comparison or "columns" in read(file, []):
        raise UserError(
            f"{file}: is a comparison: python compare.py {file}; --train trains its methods first"
        )
    from options.load import load

    return replace(load(file, overrides), command=shlex.join([str(file), *overrides]))


def comparison_from(args: argparse.Namespace) -> "Comparison":
    """The comparison that a command line describes.

    ``--seeds N`` is the same as ``seeds=N``.

    Raises:
        UserError: If an option is wrong, or two files are named.
    """
    from options.yaml_text import read

    file, overrides = file_and_overrides(args, DEFAULT_COMPARISON)
    if "exp" in read(file, []):
        raise UserError(f"{file}: is an experiment, not a comparison: python test.py {file}")
    overrides += [] if args.seeds is None else [f"seeds={args.seeds}"]
    from options.comparison_file import load_comparison

    command = shlex.join([str(file), *overrides])
    return replace(load_comparison(file, overrides), command=command)
