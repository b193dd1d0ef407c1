"""What a tree of processes costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory

import psutil
import pytest

from jobs.benchmarks import process_tree
from jobs.benchmarks.process_tree import CpuSampler, MemorySampler, list_processes, measure_cpu_s, measure_private_bytes

MEBIBYTE = 2**20
HOLD = "import sys; held = bytearray(b'x') * (64 << 20); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that holds 64 MiB until its standard input ends."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.communicate()


def test_a_tree_begins_with_its_root_and_holds_its_children(child: subprocess.Popen[str]) -> None:
    pids = [process.pid for process in list_processes(os.getpid())]
    assert pids[0] == os.getpid()
    assert child.pid in pids


def test_cpu_seconds_of_an_ended_child_still_count() -> None:
    before = measure_cpu_s(os.getpid())
    work = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert measure_cpu_s(os.getpid()) - before >= 0.49  # ticks of 10 ms


def test_private_memory_leaves_out_what_is_shared(child: subprocess.Popen[str]) -> None:
    assert 64 * MEBIBYTE < measure_private_bytes(psutil.Process(child.pid)) < 128 * MEBIBYTE
    ours = psutil.Process()
    before = measure_private_bytes(ours)
    block = SharedMemory(create=True, size=64 * MEBIBYTE)
    try:
        block.buf[:] = bytes(64 * MEBIBYTE)
        assert measure_private_bytes(ours) - before < 32 * MEBIBYTE
    finally:
        block.close()
        block.unlink()


def test_a_process_that_is_gone_has_no_memory() -> None:
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(gone.pid)
    gone.communicate()
    assert measure_private_bytes(process) == 0


def test_a_sampler_knows_the_peak_of_a_child(child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "SAMPLE_INTERVAL_S", 0.01)
    with MemorySampler() as sampler:
        while sampler.peak_largest_bytes == 0:
            assert child.poll() is None
    assert 64 * MEBIBYTE < sampler.peak_largest_bytes <= sampler.peak_total_bytes


def test_the_cpu_of_an_orphan_that_ends_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of a killed worker: nobody who is counted waits for it."""
    monkeypatch.setattr(process_tree, "SAMPLE_INTERVAL_S", 0.02)
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\nimport sys; sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with CpuSampler() as sampler:
        worker = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(0.2)
        worker.kill()  # its child ends with its standard input
        worker.communicate()
    assert 0.45 < sampler.cpu_s < 1.5
