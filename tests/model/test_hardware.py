"""What a machine is said to be able to do."""

from __future__ import annotations

import pytest
import torch

from model import hardware
from model.config import BF16_VARIABLE
from model.hardware import find_faster_precision, has_fast_bf16


def test_a_machine_is_slow_at_bf16_when_its_owner_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BF16_VARIABLE, "off")
    assert not has_fast_bf16("cpu")
    assert not has_fast_bf16("cuda")


def test_another_word_than_auto_or_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BF16_VARIABLE, "no")
    with pytest.raises(ValueError, match="ATTENTDIFFERNET_BF16 needs auto or off, got 'no'"):
        has_fast_bf16("cpu")


@pytest.mark.parametrize("instructions", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
@pytest.mark.parametrize("kernels", [True, False])
def test_fast_bf16_needs_instructions_and_kernels_that_use_them(
    monkeypatch: pytest.MonkeyPatch, instructions: str, *, kernels: bool
) -> None:
    monkeypatch.delenv(BF16_VARIABLE, raising=False)
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda found=name == instructions: found)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: kernels)
    assert has_fast_bf16("cpu") is kernels


def test_kernels_without_instructions_are_not_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert not has_fast_bf16("cpu")


@pytest.mark.parametrize(("is_fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_the_faster_precision_is_bf16_only_where_a_device_is_fast_at_it(
    monkeypatch: pytest.MonkeyPatch, expected: str, *, is_fast: bool
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bf16", lambda device: is_fast)
    assert find_faster_precision("cpu") == expected
