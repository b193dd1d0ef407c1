"""Which arithmetic a run scores with, decided once from what the cluster's machines can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.cluster.datasets import wait_for_scoring_resources
from jobs.cluster.session import start_ray
from jobs.config import AskedPrecision, ScoringResources
from model.config import Precision
from model.processor import judge_bf16, read_cpu_name


def choose_precisions(
    calibrated: Sequence[Precision], *, asked: AskedPrecision, resources: ScoringResources, local: bool = False
) -> list[Precision]:
    """Chooses the precision of each detector for a whole run; says so where it is not that of the calibration.

    p-values hold for the arithmetic that a detector was calibrated with. ``auto`` leaves it only for fp32, which
    differs from bf16 by rounding, and only where a machine that may score is slow at bf16. Then all machines take
    fp32, so that one run has one arithmetic.

    Args:
        calibrated: precision of each detector's calibration.
        asked: what the run asked for.
        resources: share of the cluster that scores.
        local: this process scores, and no cluster is asked.
    """
    if asked != "auto" or "bf16" not in calibrated:
        return list(calibrated)
    slow = describe_slow_machine(resources.use_gpu) if local else find_slow_machine(use_gpu=resources.use_gpu)
    if slow is None:
        return list(calibrated)
    print(f"warning: {slow} has no fast bf16: this run scores in fp32", flush=True)
    return ["fp32"] * len(calibrated)


def find_slow_machine(*, use_gpu: bool) -> str | None:
    """Names the processor of a node that is slow at bf16; None where all that may score are fast. Starts Ray.

    Raises:
        RequestError: no node can score, and the cluster cannot grow.
    """
    start_ray()
    wait_for_scoring_resources(ScoringResources(use_gpu=use_gpu))  # else the question below waits for ever
    needed = "GPU" if use_gpu else "CPU"
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # ray ships no types
    places: list[NodeAffinitySchedulingStrategy | str] = [
        NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        for node in nodes
        if node["Alive"] and needed in node["Resources"]
    ]
    # A tenth of a slot, so that the question finds room beside work.
    ask = ray.remote(num_cpus=0.1, num_gpus=0.1 if use_gpu else 0)(describe_slow_machine)
    answers = [ask.options(scheduling_strategy=place).remote(use_gpu) for place in places or ["DEFAULT"]]
    return next((name for name in ray.get(answers) if name is not None), None)


def describe_slow_machine(use_gpu: bool) -> str | None:  # Ray's types know positional arguments alone
    """Names this machine's processor if it is slow at bf16, else None."""
    is_fast = None if use_gpu else judge_bf16()
    if is_fast is None:
        # 2 s of CPU for torch, which a driver does not need and a processor's own word mostly spares.
        from model.hardware import has_fast_bf16

        is_fast = has_fast_bf16("cuda" if use_gpu else "cpu")
    return None if is_fast else read_cpu_name()
