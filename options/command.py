"""The command line that all programs share: an options file and ``a.b=value`` arguments."""

import argparse
from pathlib import Path

from options.load import load
from options.schema import Run
from utils.errors import UserError

DEFAULT = Path("options/KDstudent.yaml")


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


def run_from(args: argparse.Namespace) -> tuple[Run, str]:
    """The run that a command line describes, and the options as they were written.

    Raises:
        UserError: If an option is wrong, or two files are named.
    """
    overrides = [text for text in args.arguments if "=" in text]
    files = [Path(text) for text in args.arguments if "=" not in text]
    files += [args.config] if args.config else []
    if len(files) > 1:
        raise UserError(f"{files[1]}: one options file at a time, {files[0]} is named already")
    file = files[0] if files else DEFAULT
    return load(file, overrides), " ".join([str(file), *overrides])
