"""Output to the terminal."""

import sys

from tqdm import tqdm

from utils.ranks import is_main


def say(line: str) -> None:
    """Prints a line, above any progress bar; only in the main process."""
    if not is_main():
        return
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
