"""How much of a GPU scoring uses: views per second against its bf16 products and its memory's bandwidth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from jobs.benchmarks.config import GpuBenchmarkConfig
from jobs.benchmarks.network import count_operations_per_view
from jobs.benchmarks.report import print_metrics, write_report
from jobs.errors import RequestError
from model.detector import AttentDifferNet
from model.inference.detector import build_scorer
from model.presets import get_random_preset
from model.process import prepare_process

_HALF_BYTES = 2


def measure_gpu(config: GpuBenchmarkConfig) -> None:
    """Measures scoring from the CPU's memory on, and what the device could do; all times are on the clock.

    ``bf16_peak_fraction`` is the convolutions' sums over those of a matrix product. ``bandwidth_fraction`` is what the
    layers read and write, were nothing kept in a cache, over a copy within the device's memory; it may exceed 1.

    Raises:
        RequestError: there is no such device.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise RequestError("needed an NVIDIA GPU, torch sees none: run it on a GPU node, or give --device cpu")
    prepare_process()
    device = torch.device(config.device)
    detector = AttentDifferNet(get_random_preset(config.preset, precision=config.precision)).eval()
    sums, traffic = count_operations_per_view(detector), count_traffic_per_view(detector)
    views, size = detector.config.views, detector.config.image_size
    scorer = build_scorer(detector.to(device))
    images = torch.randint(0, 256, (config.batch_photos, 3, size, size), dtype=torch.uint8)
    images = images.pin_memory() if device.type == "cuda" else images
    limits = measure_limits(device, side=config.gemm_side, copied_bytes=config.copied_mib * 2**20)
    times_s = [time_work(lambda: scorer.score(images.to(device)), device) for _ in range(config.repeats + 1)]
    batch_s = statistics.median(times_s[1:])  # the first one warms up
    views_per_s = len(images) * views / batch_s
    metrics: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "gpu_view_ms": 1000 / views_per_s,
        "images_per_s": len(images) / batch_s,
        "views_per_s": views_per_s,
        "network_tflops": sums * views_per_s / 1e12,
        "bf16_peak_fraction": sums * views_per_s / 1e12 / limits["gemm_tflops"],
        "bandwidth_fraction": traffic * views_per_s / 1e9 / limits["copy_gb_per_s"],
        **limits,
    }
    write_report(metrics, output=config.output, config=config)
    print_metrics(metrics, [name for name in metrics if name != "device"])


def measure_limits(device: torch.device, *, side: int, copied_bytes: int) -> dict[str, float]:
    """Measures bf16 products (1e12 sums/s), copies within the device and copies to it (1e9 bytes/s)."""
    left = torch.randn(side, side, device=device).to(torch.bfloat16)
    source = torch.empty(copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    outside = torch.empty(copied_bytes, dtype=torch.uint8)
    outside = outside.pin_memory() if device.type == "cuda" else outside
    return {
        "gemm_tflops": 2 * side**3 / time_best(lambda: left @ left, device) / 1e12,
        "copy_gb_per_s": 2 * copied_bytes / time_best(lambda: target.copy_(source), device) / 1e9,
        "upload_gb_per_s": copied_bytes / time_best(lambda: target.copy_(outside), device) / 1e9,
    }


def time_best(work: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds of the fastest of ten calls, the first of which warms up."""
    return min(time_work(work, device) for _ in range(10))


def time_work(work: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds on the clock until the device has done what a call asks for."""
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has nothing left to do; a CPU never has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def count_traffic_per_view(detector: AttentDifferNet) -> float:
    """Counts the bytes that the backbone's layers read and write for one view, all scales, at two bytes a number."""
    counted: list[int] = []

    def count(_layer: nn.Module, arguments: tuple[torch.Tensor, ...], maps: torch.Tensor) -> None:
        counted.append(_HALF_BYTES * (arguments[0].numel() + maps.numel()))

    leaves = [layer for layer in detector.backbone.layers.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(count) for layer in leaves]
    side = detector.config.image_size
    detector.pool_features(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    for handle in handles:
        handle.remove()
    return float(sum(counted))
