"""What a processor says of itself, without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from model import processor
from model.config import BF16_VARIABLE
from model.hardware import has_fast_bf16
from model.processor import judge_bf16, read_cpu_name, read_instructions


def test_the_processor_has_a_name() -> None:
    assert read_cpu_name()


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (BF16_VARIABLE, "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("unlimited")
def test_torch_and_the_processor_say_the_same_of_bf16() -> None:
    if not read_instructions():
        pytest.skip("this system names no instructions")
    # In a process of its own: oneDNN reads its limits once, and this one may have had some.
    ask = "from model.hardware import has_fast_bf16; print(has_fast_bf16('cpu'))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(judge_bf16())


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ("sse2 avx2 fma", False),
        ("avx2 avx512f avx512_bf16", True),
        ("avx2 avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("avx512f amx_bf16", True),
        ("", None),
    ],
)
def test_fast_bf16_is_told_by_the_instructions(
    monkeypatch: pytest.MonkeyPatch, instructions: str, *, expected: bool | None
) -> None:
    monkeypatch.setattr(processor, "read_instructions", lambda: frozenset(instructions.split()))
    assert judge_bf16() is expected


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_where_onednn_is_limited_only_torch_can_tell(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(processor, "read_instructions", lambda: frozenset(["avx512_bf16"]))
    monkeypatch.setenv(name, "AVX2")
    assert judge_bf16() is None


@pytest.mark.parametrize("ask", [judge_bf16, lambda: has_fast_bf16("cpu")])
def test_a_machine_whose_owner_says_so_is_slow_at_bf16(monkeypatch: pytest.MonkeyPatch, ask: object) -> None:
    monkeypatch.setenv(BF16_VARIABLE, "off")
    assert callable(ask)
    assert ask() is False
