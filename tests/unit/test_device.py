"""What is asked of the machine, and what is said where it has not got it."""

import pytest
import torch

from utils.device import Machine, has_units
from utils.errors import UserError

CPU = torch.device("cpu")


def test_without_onednn_a_cpu_has_no_bf16(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.delattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", raising=False)
    assert has_units(torch.float32, CPU)
    assert not has_units(torch.bfloat16, CPU)


def test_more_processes_than_devices(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"nproc_per_node=2: this machine has only 1 device.*mps"):
        Machine.choose("mps", "fp32")
    assert Machine.choose("cpu", "fp32").device == CPU
