"""The command has moved: ``python -m demo``."""

import sys

if __name__ == "__main__":
    sys.stderr.write("python -m datasets.synthetic: the command is now: python -m demo\n")
    sys.exit(2)
