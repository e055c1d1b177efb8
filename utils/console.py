"""Output to the terminal."""

import sys

from tqdm import tqdm

from utils.ranks import is_main


def say(line: str) -> None:
    """Prints a line, above any progress bar; only in the main process."""
    if not is_main():
        return
    encoding = sys.stdout.encoding or "utf-8"  # that of a Windows console has few signs
    tqdm.write(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stdout)
    sys.stdout.flush()
