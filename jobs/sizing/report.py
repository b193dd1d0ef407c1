"""A plan as text: a line for each number of photos, the costs behind it, and what would stop a larger run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jobs.sizing.config import DEFAULT_HOURS, CapacityConfig
from jobs.sizing.costs import MACHINE
from jobs.sizing.plan import Plan, compute_photo_costs
from jobs.sizing.quantities import format_quantity

_HEADER = ("photos", "cores", "GPUs", "nodes", "hours", "GB/s", "TB", "USD", "waits for", "next bottleneck")


def describe_plans(plans: Sequence[Plan], config: CapacityConfig) -> dict[str, Any]:
    """Returns the plans and what they were computed from, as JSON."""
    return {
        "plans": [asdict(plan) | {"bottleneck": plan.bottleneck} for plan in plans],
        "photo_costs": asdict(compute_photo_costs(config)),
        "config": config.model_dump(mode="json"),
        "machine": None if config.measure else MACHINE,
    }


def format_plans(plans: Sequence[Plan], config: CapacityConfig) -> str:
    """Formats the plans as a table, with the formula filled in below it."""
    lines = align_right([_HEADER, *(_format_row(plan) for plan in plans)])
    return "\n".join([*lines, "", *_explain(config), *_list_limits(plans, config)])


def align_right(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line for each row, every column flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _format_row(plan: Plan) -> tuple[str, ...]:
    return (
        format_quantity(plan.photos),
        str(plan.cores),
        str(plan.gpus),
        str(plan.nodes),
        f"{plan.hours:.1f}",
        f"{plan.gb_per_s:.2f}",
        f"{plan.terabytes:.1f}",
        f"{plan.dollars:,.0f}",
        plan.bottleneck,
        f"{plan.next_bottleneck} ({100 * plan.next_share:.0f} % of the time)",
    )


def _explain(config: CapacityConfig) -> list[str]:
    photo, costs = compute_photo_costs(config), config.costs
    gpu = f" and {photo.gpu_ms:.2f} ms of a GPU" if photo.gpu_ms else ""
    return [
        f"a photo of {config.megapixels:g} megapixels ({photo.mb:.2f} MB), {config.preset}, {config.precision}: "
        f"{photo.cpu_ms:.1f} ms of a core{gpu}",
        f"cores = photos x {photo.cpu_ms:.1f} ms / {costs.used_share:g} / "
        f"(hours x 3600 s - {costs.start_s:g} s - photos / 1e6 x {costs.list_s_per_million:g} s)",
        "measured here" if config.measure else f"measured on: {MACHINE}",
    ]


def _list_limits(plans: Sequence[Plan], config: CapacityConfig) -> list[str]:
    """Says which plans do not fit into the time that was asked for, and what to do."""
    if config.cores is not None:
        return []
    asked = config.hours or DEFAULT_HOURS
    return [
        f"{format_quantity(plan.photos)} does not fit into {asked:g} hours, whatever the cluster, because of: "
        f"{', '.join(name for name, hours in plan.shared_hours.items() if hours > asked)}"
        for plan in plans
        if plan.hours > 1.01 * asked
    ]
