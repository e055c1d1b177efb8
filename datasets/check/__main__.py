"""The command has moved: ``python check.py``."""

import sys

if __name__ == "__main__":
    sys.stderr.write("python -m datasets.check: the command is now: python check.py\n")
    sys.exit(2)
