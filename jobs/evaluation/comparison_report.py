"""What a comparison leaves behind: scores as Parquet, metrics as JSON, tables as Markdown, histograms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.archive.mvtec import FLAWLESS, select_split
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.evaluation.comparison_cost import build_method_rows
from jobs.evaluation.flawless import make_outcome_promises
from jobs.evaluation.leave_one_out import (
    LeftOut,
    average_sets,
    compare_choice,
    format_choices,
    leave_each_out,
    read_data_set,
)
from jobs.evaluation.metrics import (
    Comparison,
    Seed,
    VariantSummary,
    compare_with_reference,
    measure_detectors,
    summarize_variants,
)
from jobs.evaluation.published.table import format_paper_table
from jobs.evaluation.report import format_false_alarms, format_interval, write_histograms
from jobs.storage import uris
from jobs.tables.parquet import write_parquet
from jobs.tables.schema import EVALUATED, Status
from jobs.tables.text import format_table
from model.baselines import BASELINES
from model.versions import read_versions


@dataclass(frozen=True)
class Failure:
    """A unit that gave no scores."""

    category: str
    variant: str
    seed: Seed
    reason: str


def write_comparison(
    config: ComparisonConfig,
    outcomes: Sequence[Mapping[str, Any]],
    failures: Sequence[Failure],
    manifests: Mapping[str, pa.Table],
) -> None:
    """Writes comparison.md and .json, scores.parquet, methods.parquet and histograms/; prints the first.

    Args:
        config: what was asked for.
        outcomes: of the finished units.
        failures: the other units.
        manifests: category -> MANIFEST rows of its photos.
    """
    rows = build_evaluated_rows(outcomes, manifests)
    promises = make_outcome_promises(outcomes, false_alarm_rate=config.false_alarm_rate)
    metrics = measure_detectors(rows, promises=promises)
    variants = [*config.variants, *(BASELINES if config.baselines else ())]
    apart = [name for name in manifests if read_data_set(name) in config.confirm]
    summaries = summarize_variants(metrics, variants=variants, apart=apart)
    against = compare_apart(rows, apart, variants=variants, reference=config.variants[0])
    if best := find_best_baseline(summaries, categories=len(manifests)):
        against += compare_apart(rows, apart, variants=config.variants, reference=best)
    kept = list(format_false_alarms(metrics, promises))
    protocol = list(report_protocol(config, rows, summaries)) if config.leave_one_set_out else []
    lines = [*format_markdown(config, summaries, against, failures, manifests), *list_items(kept), *protocol]
    markdown = "\n".join(lines) + "\n"
    found = {
        "config": config.model_dump(mode="json"),
        "categories": {name: count_photos(manifest) for name, manifest in manifests.items()},
        "variants": [asdict(summary) for summary in summaries],
        "comparisons": [asdict(comparison) for some in against for comparison in some],
        "false_alarms": kept,
        "leave_one_set_out": [asdict(choice) for choice in choose_by_protocol(config, summaries)],
        "failures": [asdict(failure) for failure in failures],
        "units": [{key: value for key, value in one.items() if key != "scores"} for one in outcomes],
        "versions": read_versions(),
    }
    write_parquet(rows, uris.join(config.output, "scores.parquet"))
    write_parquet(build_method_rows(metrics, outcomes), uris.join(config.output, "methods.parquet"))
    storage.write(uris.join(config.output, "comparison.json"), json.dumps(found, indent=2).encode())
    storage.write(uris.join(config.output, "comparison.md"), markdown.encode())
    write_histograms(rows, config.output)
    print(markdown)
    print(f"written to {config.output}")


def compare_apart(
    rows: pa.Table, apart: Sequence[str], *, variants: Sequence[str], reference: str
) -> list[list[Comparison]]:
    """Compares variants with a reference on all categories but some, and on those by themselves.

    Args:
        rows: EVALUATED rows.
        apart: the categories that are not averaged with the others.
        variants: names.
        reference: name.
    """
    is_apart = pc.is_in(rows["category"], value_set=pa.array(apart, pa.string()))
    parts = [rows.filter(pc.invert(is_apart)), *([rows.filter(is_apart)] if apart else [])]
    return [compare_with_reference(part, variants=variants, reference=reference) for part in parts]


def choose_by_protocol(config: ComparisonConfig, summaries: Sequence[VariantSummary]) -> list[LeftOut]:
    """Chooses a variant for each set that is left out; none where the comparison does not ask for it."""
    if not config.leave_one_set_out:
        return []
    return leave_each_out(average_sets(summaries, variants=config.variants), confirm=config.confirm)


def report_protocol(config: ComparisonConfig, rows: pa.Table, summaries: Sequence[VariantSummary]) -> Iterator[str]:
    """Yields the lines of the leave-one-set-out protocol, see `jobs.evaluation.leave_one_out`."""
    choices, reference = choose_by_protocol(config, summaries), config.variants[0]
    yield ""
    if not choices:
        yield "Leaving one set out: no variant was scored on every set."
        return
    yield from format_choices(choices, average_sets(summaries, variants=config.variants), reference=reference)
    yield ""
    yield f"What was chosen, against `{reference}` on the sets left out; a second row has the sets that confirm:"
    yield ""
    yield format_comparisons(compare_choice(rows, choices, reference=reference))


def build_evaluated_rows(outcomes: Iterable[Mapping[str, Any]], manifests: Mapping[str, pa.Table]) -> pa.Table:
    """Builds EVALUATED rows: one per test photo and outcome, also of photos that could not be decoded.

    Args:
        outcomes: category, variant, seed and perhaps detector_id of a detector; ``scores`` and ``lost`` by URI.
        manifests: category -> LABELLED rows.
    """
    columns = ("category", "variant", "seed", "detector_id")
    photos = {
        name: select_split(manifest, "test").select(["image_uri", "label"]).to_pylist()
        for name, manifest in manifests.items()
    }
    found = [
        {
            **{name: one.get(name) for name in columns},
            "label": photo["label"],
            "image_uri": photo["image_uri"],
            "status": Status.SCORED if photo["image_uri"] in one["scores"] else Status.UNREADABLE,
            "error": one["lost"].get(photo["image_uri"]),
            "score": one["scores"].get(photo["image_uri"]),
        }
        for one in outcomes
        for photo in photos[one["category"]]
    ]
    return pa.Table.from_pylist(found, schema=EVALUATED)


def list_items(lines: Sequence[str]) -> list[str]:
    """Formats lines as a Markdown list after an empty line; nothing where there are none."""
    return ["", *(f"- {line}" for line in lines)] if lines else []


def find_best_baseline(summaries: Sequence[VariantSummary], *, categories: int) -> str | None:
    """Returns the baseline of the highest mean AUROC among those scored on all categories.

    Chosen on the test photos, which flatters it: it is the bar, not a proposal.
    """
    whole = [one for one in summaries if one.variant in BASELINES and len(one.by_category) == categories]
    return max(whole, key=lambda one: one.mean["auroc"].mean).variant if whole else None


def count_photos(manifest: pa.Table) -> dict[str, int]:
    """Counts the training photos and the test photos of both classes."""
    labels = select_split(manifest, "test")["label"].to_pylist()
    good = labels.count(FLAWLESS)
    return {"train": len(manifest) - len(labels), "test_flawless": good, "test_defective": len(labels) - good}


def format_markdown(
    config: ComparisonConfig,
    summaries: Sequence[VariantSummary],
    against: Sequence[Sequence[Comparison]],
    failures: Sequence[Failure],
    manifests: Mapping[str, pa.Table],
) -> Iterator[str]:
    """Yields the lines of comparison.md: the table, differences, failures and settings."""
    yield f"Test AUROC in %, mean ± half of the 95 % interval (Student's t) over {config.seeds} seed(s), last epoch."
    yield ""
    yield format_summaries(summaries, list(manifests))
    yield ""
    yield from format_paper_table(summaries, list(manifests))
    for comparisons in (some for some in against if some):
        yield ""
        yield (
            f"Difference of AUROC to `{comparisons[0].reference}` in points, mean over {name_categories(comparisons)}, "
            "95 % interval by paired bootstrap over photos and seeds; the wide one draws the categories, too:"
        )
        yield ""
        yield format_comparisons(comparisons)
    for failure in failures:
        yield ""
        seed = "" if failure.seed is None else f", seed {failure.seed}"
        yield f"Failed: `{failure.variant}` on {failure.category}{seed}: {failure.reason}"
    yield ""
    yield f"Settings: {format_settings(config)}."


def name_categories(comparisons: Sequence[Comparison]) -> str:
    """Names the categories that any of the comparisons has."""
    return ", ".join(sorted({name for one in comparisons for name in one.categories})) or "no category"


def format_summaries(summaries: Sequence[VariantSummary], categories: Sequence[str]) -> str:
    """Returns a Markdown table with a row per variant: AUROC in each category, means over all."""
    columns = ["variant", *categories, "mean", "mean AUPR", "mean recall at 5 % false alarms"]
    return format_table(columns, [list_cells(one, categories) for one in summaries], markdown=True)


def list_cells(one: VariantSummary, categories: Sequence[str]) -> list[str]:
    """Returns the cells of a variant's row: its name, the AUROC of each category, and the means."""
    name = f"baseline `{one.variant}`" if one.variant in BASELINES else f"`{one.variant}`"
    by_category = {category: metrics["auroc"] for category, metrics in one.by_category.items()}
    # A mean over fewer categories than the others' would be read as comparable.
    is_whole = len(by_category) == len(categories)
    means = [one.mean[metric] if is_whole else None for metric in ("auroc", "aupr", "recall_at_5_percent")]
    intervals = [*map(by_category.get, categories), *means]
    return [name, *("-" if cell is None else format_interval(cell, sign="±") for cell in intervals)]


def format_comparisons(comparisons: Sequence[Comparison]) -> str:
    """Returns a Markdown table with a row per variant: its difference to the reference in points."""
    columns = ["variant", "difference", "95 % interval", "wide", "share of resamples <= 0", "categories", "seeds"]
    rows: list[list[object]] = []
    for one in comparisons:
        cells: list[object] = [None, None, None, None]
        if one.mean is not None:
            ends = [format_ends(one.low, one.high), format_ends(one.wide_low, one.wide_high)]
            cells = [f"{100 * one.mean:+.2f}", *ends, f"{one.share_not_above:.4f}"]
        rows.append([f"`{one.variant}`", *cells, len(one.categories), one.seeds])
    return format_table(columns, rows, markdown=True)


def format_ends(low: float | None, high: float | None) -> str | None:
    """Returns ``-0.12..+1.30`` in points, None where an interval has no ends."""
    return None if low is None or high is None else f"{100 * low:+.2f}..{100 * high:+.2f}"


def format_settings(config: ComparisonConfig) -> str:
    """Returns the settings of all variants in one line, so that the table says what it was made with."""
    detector = config.detector.model_dump(mode="json", exclude_unset=True)
    optimizer = config.optimizer.model_dump(mode="json")
    custom = f"; custom {json.dumps(config.custom)}" if config.custom else ""
    return (
        f"detector {json.dumps(detector)}; optimizer {json.dumps(optimizer)}; attention pretext on {config.pretext_on} "
        f"photos{custom}"
    )
