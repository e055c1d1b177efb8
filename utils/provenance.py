"""Where a figure comes from: which code, on what machine."""

import platform
import subprocess
from pathlib import Path

import torch
import torchvision


def commit() -> str:
    """The short hash of the checked-out commit, ``-dirty`` if files differ from it."""
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=9", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # unpacked from an archive, or no git here
    return done.stdout.strip()


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
