"""Lines for the person at the terminal."""

import sys

from tqdm import tqdm

from utils.ranks import is_main


def say(line: str) -> None:
    """Prints a line, above a progress bar if there is one; only the main process prints."""
    if not is_main():
        return
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
