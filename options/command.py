"""The command line that all programs share: an options file and ``a.b=value`` arguments."""

import argparse
import shlex
from pathlib import Path

from options.comparison_file import Comparison, load_comparison
from options.load import load
from options.schema import Run
from options.tree import read
from utils.errors import UserError

DEFAULT = Path("options/KDstudent.yaml")
DEFAULT_COMPARISON = Path("options/comparison/visa.yaml")


def options_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser for ``[FILE] [a.b=value ...]``; a program may add flags of its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config", type=Path, help="the same as naming FILE")
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="FILE | a.b=value",
        help=f"options file (default: {DEFAULT}), and options that go over it",
    )
    return parser


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Adds ``--seeds N`` to a program that can do its job for several seeds."""
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="do it for misc.seed and the next N - 1, each in <exp.dir>/seed_<seed>",
    )


def file_and_overrides(args: argparse.Namespace, default: Path) -> tuple[Path, list[str]]:
    """The file that a command line names, and the options that go over it.

    Raises:
        UserError: If two files are named.
    """
    overrides = [text for text in args.arguments if "=" in text]
    files = [Path(text) for text in args.arguments if "=" not in text]
    files += [args.config] if args.config else []
    if len(files) > 1:
        raise UserError(f"{files[1]}: one options file at a time, {files[0]} is named already")
    return (files[0] if files else default), overrides


def run_from(args: argparse.Namespace) -> tuple[Run, str]:
    """The run that a command line describes, and the options as they were written.

    Raises:
        UserError: If an option is wrong, or two files are named.
    """
    file, overrides = file_and_overrides(args, DEFAULT)
    if "columns" in read(file, []):
        raise UserError(f"{file}: compares methods: run.py and test.py take it with --compare")
    return load(file, overrides), shlex.join([str(file), *overrides])


def comparison_from(args: argparse.Namespace) -> tuple[Comparison, str]:
    """The comparison that a command line describes, and the options as they were written.

    ``--seeds N`` is the same as ``seeds=N``.

    Raises:
        UserError: If an option is wrong, or two files are named.
    """
    file, overrides = file_and_overrides(args, DEFAULT_COMPARISON)
    if "exp" in read(file, []):
        raise UserError(f"{file}: is about one experiment: leave --compare out")
    overrides += [] if args.seeds is None else [f"seeds={args.seeds}"]
    return load_comparison(file, overrides), shlex.join([str(file), *overrides])
