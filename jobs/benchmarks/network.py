"""How close the networks come to the machine: sums per second of the network stage, and of plain matrix products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from jobs.benchmarks.config import NetworkBenchmarkConfig
from jobs.benchmarks.report import print_metrics, write_report
from model.config import DetectorConfig, Precision
from model.detector import AttentDifferNet
from model.hardware import find_faster_precision
from model.inference.detector import CompiledDetector
from model.network.rotation import list_scoring_angles
from model.process import keep_freed_memory, prepare_process

GEMM_SIDES = (1024, 2048, 4096)
_VIEWS = 64
_GEMM_SECONDS = 0.3


def measure_network(config: NetworkBenchmarkConfig) -> None:
    """Measures the network stage of AlexNet at 448 px, three scales: photos to pooled features of views.

    Writes medians over the repeats: ``gemm_peak_fraction``, against the fastest of the products that are too large for
    a core's own cache (2048 and 4096), ``gemm_best_fraction``, against the fastest of all, and what they were computed
    from, in 1e9 sums per second.
    """
    prepare_process()
    keep_freed_memory()
    precision = find_faster_precision("cpu")
    detector = AttentDifferNet(DetectorConfig(variant="differnet", weights="random", precision=precision)).eval()
    sums = count_operations_per_view(detector)
    stage = prepare_network_stage(detector, precision)
    products = {
        side: prepare_product(side, torch.bfloat16 if precision == "bf16" else torch.float32) for side in GEMM_SIDES
    }
    stage_rates: list[float] = []
    rates: dict[int, list[float]] = {side: [] for side in GEMM_SIDES}
    for _ in range(config.repeats):
        stage_rates.append(sums * _VIEWS / measure_cpu_s(stage))
        for side, product in products.items():
            times = max(1, round(_GEMM_SECONDS / measure_cpu_s(product)))
            rates[side].append(2 * side**3 * times / measure_cpu_s(product, times=times))
    network, gemm = statistics.median(stage_rates), {side: statistics.median(found) for side, found in rates.items()}
    metrics = {
        "gemm_peak_fraction": network / max(gemm[2048], gemm[4096]),
        "gemm_best_fraction": network / max(gemm.values()),
        "network_gflops": network / 1e9,
        "network_ms_per_view": sums / network * 1e3,
        "gemm_gflops": {str(side): rate / 1e9 for side, rate in gemm.items()},
        "network_precision": precision,
    }
    write_report(metrics, output=config.output, config=config)
    print_metrics(metrics, ("gemm_peak_fraction", "gemm_best_fraction"))


def measure_cpu_s(work: Callable[[], object], *, times: int = 1) -> float:
    """Returns the CPU seconds of this process for calling ``work`` so many times."""
    began = time.process_time()
    for _ in range(times):
        work()
    return time.process_time() - began


def prepare_product(side: int, kind: torch.dtype) -> Callable[[], torch.Tensor]:
    """Returns a function that multiplies two random matrices (side, side)."""
    left, right = torch.randn(side, side).to(kind), torch.randn(side, side).to(kind)
    return lambda: left @ right


@torch.inference_mode()
def prepare_network_stage(detector: AttentDifferNet, precision: Precision) -> Callable[[], object]:
    """Returns a function that pools the features of photos in 4 views each."""
    images = torch.randint(0, 256, (_VIEWS // 4, 3, 448, 448), dtype=torch.uint8)
    if precision == "fp32":
        return lambda: detector.pool_features(images.repeat(4, 1, 1, 1))
    backbone = CompiledDetector(detector).backbone

    @torch.inference_mode()
    def stage() -> torch.Tensor:
        return backbone.pool(images, list_scoring_angles(4))

    stage()
    return stage


@torch.inference_mode()
def count_operations_per_view(detector: AttentDifferNet) -> float:
    """Counts the convolutions' multiplications and additions for one view, all scales, as the layers define them."""
    counted: list[float] = []

    def count(layer: nn.Module, _args: object, maps: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            taps = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            counted.append(2.0 * maps.numel() * taps)

    handles = [
        layer.register_forward_hook(count)
        for layer in detector.backbone.layers.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    side = detector.config.image_size
    detector.pool_features(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    for handle in handles:
        handle.remove()
    return sum(counted)
