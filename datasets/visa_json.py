"""Checks VisA and writes ``meta_<split>.json``; ``--download`` fetches the data set first.

    python datasets/visa_json.py [--root data/visa] [--split 2cls_highshot] [--objects fryum ...]
    python datasets/visa_json.py --download

The file is for other programs of the field; ``run.py`` reads VisA's own tables.
"""

import argparse
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # started as a script: Python put this folder there instead
    sys.path[0] = str(ROOT)

from datasets.readers import visa  # noqa: E402
from datasets.record import to_meta  # noqa: E402
from utils.checkpoint import write_bytes  # noqa: E402
from utils.download import fetch  # noqa: E402
from utils.errors import UserError, run_command  # noqa: E402


def write_meta(root: Path, split: str, objects: Sequence[str], out: Path | None) -> Path:
    """Writes the records of one split as ``meta_<split>.json``.

    Args:
        root: VisA's folder.
        split: One of ``visa.SPLITS``.
        objects: The objects; empty: all.
        out: The file; ``None``: ``meta_<split>.json`` in ``root``.

    Returns:
        The file written.

    Raises:
        UserError: If anything is missing or wrong; nothing is written then.
    """
    splits = visa.read_visa(root, split=split, objects=tuple(objects))
    file = out or root / f"meta_{split}.json"
    write_bytes(json.dumps(to_meta(splits), indent=1).encode(), file)
    for name, records in splits.items():
        anomalies = sum(record.label for record in records)
        sys.stdout.write(f"{name}: {len(records) - anomalies} normal, {anomalies} anomalous\n")
    sys.stdout.write(f"wrote {file}\n")
    return file


def download(root: Path, url: str, sha256: str, size: int | None) -> None:
    """Fetches the archive, or the rest of it after an interruption, and unpacks it into ``root``.

    Raises:
        UserError: If it cannot be fetched, its checksum is wrong, or it cannot be unpacked.
    """
    archive = fetch(url, root / url.rsplit("/")[-1], sha256=sha256, size=size)
    try:
        with tarfile.open(archive) as tar:
            for member in tqdm(tar.getmembers(), unit="file", desc="unpacking"):
                tar.extract(member, root, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error})") from error
    sys.stdout.write(f"unpacked {archive}; it may be deleted now\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data/visa"), help="VisA's folder")
    parser.add_argument("--split", choices=visa.SPLITS, default="2cls_highshot")
    parser.add_argument("--objects", nargs="+", default=(), help="a part of it; default: all")
    parser.add_argument("--out", type=Path, help="file to write; default: ROOT/meta_SPLIT.json")
    parser.add_argument("--download", action="store_true", help="fetch the archive first (1.93 GB)")
    parser.add_argument("--url", default=visa.URL, help="a mirror of the archive")
    parser.add_argument("--sha256", default=visa.SHA256, help="its checksum")
    args = parser.parse_args(arguments)

    def command() -> None:
        if args.download:
            size = visa.SIZE if args.url == visa.URL else None
            download(args.root, args.url, args.sha256, size)
        write_meta(args.root, args.split, args.objects, args.out)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
