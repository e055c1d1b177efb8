"""The command has moved: ``python cache.py``."""

import sys

if __name__ == "__main__":
    sys.stderr.write("python -m datasets.cache: the command is now: python cache.py --list\n")
    sys.exit(2)
