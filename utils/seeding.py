"""Seeds: all random choices depend on one seed."""

import hashlib
import random

import numpy as np
import torch


def derive(seed: int, *key: object) -> int:
    """A seed for one purpose: equal for equal ``seed`` and ``key``, else unrelated.

    Each epoch and each image has a seed of its own. So a run that was killed and resumed gives the
    same result as one that was not, and so does any number of loader processes.

    Returns:
        A whole number in ``[0, 2**63)``.
    """
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # used by libraries
    torch.manual_seed(seed)


def generator(seed: int, *key: object) -> torch.Generator:
    """A new CPU generator of random numbers, seeded by :func:`derive`."""
    return torch.Generator().manual_seed(derive(seed, *key))
