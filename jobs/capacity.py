"""Command: how large a cluster has to be for N photos, and what that costs.

``python -m jobs.capacity --photos 10M --megapixels 12``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.errors import EXIT_DONE
from jobs.sizing.config import CapacityConfig
from jobs.sizing.fleet import describe_fleet, format_fleets, size_fleet
from jobs.sizing.plan import make_plan
from jobs.sizing.report import describe_plans, format_plans


def main(argv: Sequence[str]) -> int:
    """Measures if it is asked to, prints a plan for each number of photos and returns the exit code."""
    config = parse_config(CapacityConfig, argv, prog="python -m jobs.capacity")
    # What measures imports torch, which takes seconds; a plan needs none of it.
    if config.measure is not None:
        from jobs.sizing.measurement import measure_costs

        config = measure_costs(config)
    if config.check_photos is not None:
        from jobs.sizing.check import check_prediction

        print(check_prediction(config), file=sys.stderr, flush=True)
    if config.fleets:
        fleets = [size_fleet(workers, config) for workers in config.fleets]
        described = [describe_fleet(fleet) for fleet in fleets]
        print(json.dumps(described) if config.format == "json" else format_fleets(fleets))
        return EXIT_DONE
    plans = [make_plan(photos, config) for photos in config.photos]
    print(json.dumps(describe_plans(plans, config)) if config.format == "json" else format_plans(plans, config))
    return EXIT_DONE


if __name__ == "__main__":
    run_command(main)
