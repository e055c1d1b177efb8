"""One seed from which every random choice follows."""

import hashlib
import random

import numpy as np
import torch


def derive(seed: int, *key: object) -> int:
    """A seed for one purpose: the same for the same ``seed`` and ``key``, unrelated otherwise.

    Because each epoch and each image has its own, a run that was killed goes on exactly as if it
    had not been, and the number of loader workers changes nothing.

    Returns:
        A whole number in ``[0, 2**63)``.
    """
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # libraries below us use the global one
    torch.manual_seed(seed)


def generator(seed: int, *key: object) -> torch.Generator:
    """A CPU random generator of its own, seeded by :func:`derive`."""
    return torch.Generator().manual_seed(derive(seed, *key))
