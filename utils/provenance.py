"""Where a figure comes from: which code, on what machine."""

import hashlib
import platform
import subprocess
from pathlib import Path

import torch
import torchvision

_PACKAGES = ("utils", "datasets", "models", "options", "jobs")


def commit() -> str:
    """The short hash of the checked-out commit, ``-dirty`` if files differ from it."""
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=9", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # unpacked from an archive, or no git here
    return done.stdout.strip()


def code_hash() -> str:
    """A short name for the program as it stands on disk, committed or not: 12 hex digits."""
    root = Path(__file__).resolve().parent.parent
    found = hashlib.sha256()
    for file in sorted(p for name in _PACKAGES for p in (root / name).rglob("*.py")):
        found.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return found.hexdigest()[:12]


def environment(device: torch.device) -> dict[str, str]:
    """Versions and device, for the record."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": f"{device.type} {name}".strip(),
    }
