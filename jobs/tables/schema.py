"""The tables that cross a boundary, of archives and of labelled photos: the only place that names their columns."""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa

SCHEMA_VERSION = 3
TIME = pa.timestamp("us", tz="UTC")


class Status(StrEnum):
    """What became of one object of the archive. Every manifest row ends in exactly one of them."""

    SCORED = "scored"
    UNREADABLE = "unreadable"
    MISSING = "missing"
    NO_DETECTOR = "no_detector"
    NOT_A_PHOTO = "not_a_photo"
    FAILED = "failed"
    DELETED = "deleted"


def define_column(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """Defines a column with its description, which travels in the Parquet file."""
    return pa.field(name, kind, metadata={"description": description})


MANIFEST = pa.schema(
    [
        define_column("image_id", pa.int64(), "row number in this run's manifest"),
        define_column("image_uri", pa.string(), "scheme://bucket/key, the key as stored, never percent-encoded"),
        define_column(
            "image_etag",
            pa.string(),
            "entity tag at listing, no quotes, changes with the object's bytes; or null",
        ),
        define_column("image_bytes", pa.int64(), "object size at listing time, or null"),
        define_column("last_modified", TIME, "modification time at listing, or null"),
        define_column("category", pa.string(), "asset category by --key-pattern; null where the key does not match"),
        define_column("site", pa.string(), "site by --key-pattern, or null"),
        define_column("captured_at", TIME, "capture time by --key-pattern, or null"),
        define_column("box", pa.string(), "part of the photo, x,y,width,height in pixels as stored; null is all of it"),
        define_column("attempt", pa.int32(), "which try of this object this is, 1 for the first"),
    ]
)

LISTED = pa.schema([field for field in MANIFEST if field.name not in ("image_id", "attempt")])
"""What is known of an object before it is given its row number. A list of URIs may leave all but ``image_uri`` null."""

SCORES = pa.schema(
    [
        define_column("image_uri", pa.string(), "scheme://bucket/key, the key as stored, never percent-encoded"),
        define_column("image_etag", pa.string(), "entity tag of the bytes this row speaks of"),
        define_column("image_bytes", pa.int64(), "object size in bytes"),
        define_column("category", pa.string(), "asset category, or null where the key has none"),
        define_column("site", pa.string(), "site, or null"),
        define_column("captured_at", TIME, "capture time, or null"),
        define_column(
            "status", pa.string(), "scored, unreadable, missing, no_detector, not_a_photo, failed or deleted"
        ),
        define_column("error", pa.string(), "reason code: detail; null when scored"),
        define_column(
            "score", pa.float64(), "mean z^2 over views and dimensions; raw, comparable within one detector only"
        ),
        define_column(
            "p_value", pa.float64(), "conformal p-value in (0, 1]; comparable across categories; small is anomalous"
        ),
        define_column(
            "threshold",
            pa.float64(),
            "score above which is_anomaly; null if the calibration set is too small for the run's rate",
        ),
        define_column(
            "is_anomaly",
            pa.bool_(),
            "score > threshold, which without the run's confidence is p_value <= its false_alarm_rate; null where none "
            "was possible: no threshold",
        ),
        define_column("detector_id", pa.string(), "content id of the detector, null without one"),
        define_column("detector_variant", pa.string(), "variant name of the detector"),
        define_column("views", pa.int32(), "rotated views averaged per photo"),
        define_column("precision", pa.string(), "arithmetic of the network"),
        define_column("run_id", pa.string(), "the run that wrote this row"),
        define_column("scored_at", TIME, "when this row was computed"),
        define_column("schema_version", pa.int32(), "version of these columns"),
        # Version 2. Rows of version 1 have null from here on.
        MANIFEST.field("box"),
        define_column("false_alarm_rate", pa.float64(), "share of flawless photos that threshold may report"),
        define_column(
            "confidence",
            pa.float64(),
            "probability that threshold holds false_alarm_rate; null: it holds on average over calibration sets",
        ),
        define_column("calibration_photos", pa.int64(), "flawless photos that p_value compares with"),
        define_column(
            "smallest_p_value",
            pa.float64(),
            "1 / (calibration_photos + 1), the least that p_value can be: rows there are tied, tail_rank orders them",
        ),
        define_column(
            "tail_rank",
            pa.float64(),
            "model-based estimate of the share of flawless photos that score higher, by a generalized Pareto tail; "
            "orders photos across categories beyond smallest_p_value; no guarantee",
        ),
        define_column("weights_id", pa.string(), "content id of weights, preprocessing and precision, no calibration"),
        define_column("attempt", pa.int32(), "how often this object was tried with this outcome, 1 for the first time"),
        define_column("image_key", pa.string(), "key below the archive; joins lists with relative names"),
        define_column("width", pa.int32(), "of the photo as stored, in pixels"),
        define_column("height", pa.int32(), "of the photo as stored, in pixels"),
        define_column("fetched_at", TIME, "when the bytes were fetched that this row speaks of"),
        # Version 3. Null as well where the detector was trained before it, or the row has no score.
        define_column(
            "peak_x",
            pa.float32(),
            "where the photo deviates most, as a share of its width (of the box's, where there is one) from the left",
        ),
        define_column("peak_y", pa.float32(), "the same as a share of the height, from the top"),
        define_column(
            "peak_box",
            pa.string(),
            "region around the peak: x,y,width,height as shares of the photo's (or the box's) width and height",
        ),
        define_column(
            "peak_share",
            pa.float32(),
            "share of all deviation in the photo that lies in that region: near 1 is one spot, near 0 is all over",
        ),
    ],
    metadata={
        "contract": "attentdiffernet-ray scores: one row per photo, box and detector; the newest is the latest",
        "schema_version": str(SCHEMA_VERSION),
    },
)

STAGED = SCORES.insert(0, MANIFEST.field("image_id"))
"""SCORES before publication: keyed by image_id for checkpoint and reconciliation."""

VERDICTS = pa.schema(
    [
        define_column("image_uri", pa.string(), "scheme://bucket/key of the photo, as in the result table"),
        define_column("image_etag", pa.string(), "entity tag of the bytes that were looked at, or null"),
        define_column("box", pa.string(), "part of the photo, as in the result table; null is all of it"),
        define_column("verdict", pa.string(), "good, defect or unsure"),
        define_column("by", pa.string(), "who looked, or null"),
        define_column("at", TIME, "when; the newest verdict holds"),
    ]
)
"""What people have found on photos: the Delta table <results>/verdicts."""

MAPS = pa.schema(
    [
        *(SCORES.field(name) for name in ("image_uri", "image_etag", "box", "category", "run_id", "detector_id")),
        define_column("shown", pa.string(), "what the overlay shows: positions, or gradcam where there are none"),
        define_column("overlay_uri", pa.string(), "JPEG of the photo, or of its box, with the map and the place on it"),
        define_column(
            "maps_uri",
            pa.string(),
            "safetensors file of float32 maps (h, w) by name: positions, gradcam, gradcam_without_attention",
        ),
        define_column("explained_at", TIME, "when; of two maps of a photo the newer holds"),
    ]
)
"""Photos that runs have explained (jobs.score --explain): the Delta table <results>/maps."""

SAMPLES = pa.schema(
    [
        *(SCORES.field(name) for name in ("image_uri", "image_etag", "box", "category", "site", "run_id")),
        define_column("is_anomaly", pa.bool_(), "whether the run had reported it"),
        define_column("per", pa.string(), "run, category or site: what the sample was drawn of"),
        define_column("stratum", pa.string(), "name of that category or site; empty for none, and of a whole run"),
        define_column("stratum_photos", pa.int64(), "scored photos of the stratum"),
        define_column("stratum_unreported", pa.int64(), "those of them that the run had not reported"),
    ]
)
"""Photos drawn at random to be looked at, by jobs.sample."""

FLEET = pa.schema(
    [
        pa.field("category", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("epochs", pa.int64()),
        pa.field("last_loss", pa.float64()),
        pa.field("validation_loss", pa.float64()),
        pa.field("minutes", pa.float64(), nullable=False),
        pa.field("detector_id", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""Losses in nats per dimension: the last epoch's over training photos in the detector's own scaled features, and that
of held-out photos in standardised features (model.training.held_out_loss), to compare seeds of one variant by."""

DETECTORS = pa.schema(
    [
        define_column("category", pa.string(), "asset category"),
        define_column("detector_id", pa.string(), "content id; joins the result table"),
        define_column("weights_id", pa.string(), "the same for detectors that differ in their calibration alone"),
        define_column("aliases", pa.list_(pa.string()), "aliases that point at it now, such as champion"),
        define_column("variant", pa.string(), "variant name of the detector"),
        define_column("seed", pa.int64(), "seed of the detector"),
        define_column("epochs", pa.int64(), "epochs trained"),
        define_column("loss", pa.float64(), "of the kept epoch, in nats per dimension"),
        define_column("validation_loss", pa.float64(), "of held-out photos, to compare seeds of one variant by"),
        define_column("calibration_photos", pa.int64(), "flawless photos it is calibrated with"),
        define_column("smallest_rate", pa.float64(), "lowest false-alarm rate that they can hold"),
        define_column("parent", pa.string(), "detector that it was recalibrated from, or null"),
        define_column("git_commit", pa.string(), "of the code that made it, or null"),
        define_column("created_at", pa.string(), "when it was made, ISO 8601, UTC"),
        define_column("damage", pa.string(), "what is wrong with its files; null where nothing is"),
    ]
)
"""Registered detectors: what tells two of one variant apart."""

EVALUATED = pa.schema(
    [
        define_column("category", pa.string(), "asset category"),
        define_column("label", pa.string(), "good, or the name of the defect"),
        define_column("variant", pa.string(), "variant name of the detector, or name of the baseline"),
        define_column("seed", pa.int64(), "seed of the detector; null where chance plays no part"),
        define_column("detector_id", pa.string(), "content id of the detector; null if it is not registered"),
        define_column("image_uri", pa.string(), "scheme://bucket/key"),
        define_column("status", pa.string(), "scored, unreadable, missing or failed"),
        define_column("error", pa.string(), "reason code: detail; null when scored"),
        define_column("score", pa.float64(), "raw, higher is more anomalous, comparable within one detector only"),
        define_column(
            "p_value", pa.float64(), "conformal p-value in (0, 1]; null for a detector that is not calibrated"
        ),
    ]
)
"""Labelled photos: one row per photo and detector."""

METRICS = pa.schema(
    [
        *(EVALUATED.field(name) for name in ("category", "variant", "seed", "detector_id")),
        define_column("flawless", pa.int64(), "scored photos labelled good"),
        define_column("defective", pa.int64(), "scored photos with a defect"),
        define_column("not_scored", pa.int64(), "photos without a score"),
        define_column("auroc", pa.float64(), "area under the ROC curve, in [0, 1]"),
        define_column("auroc_low", pa.float64(), "lower end of its 95 % interval, by bootstrap over photos"),
        define_column("auroc_high", pa.float64(), "upper end"),
        define_column("aupr", pa.float64(), "average precision, in [0, 1]"),
        define_column("recall_at_1_percent", pa.float64(), "share of the defective photos found at 1 % false alarms"),
        define_column("recall_at_5_percent", pa.float64(), "the same at 5 %"),
        define_column("false_alarm_rate", pa.float64(), "promised by the calibration; null without one"),
        define_column("false_alarms", pa.int64(), "flawless photos above its threshold; null without one"),
        define_column("realised_rate", pa.float64(), "share of the flawless photos that they are, in [0, 1]"),
        define_column("realised_low", pa.float64(), "lower end of its 95 % interval (Clopper-Pearson)"),
        define_column("realised_high", pa.float64(), "upper end"),
        define_column("is_promise_kept", pa.bool_(), "whether it agrees with the rate promised"),
        define_column("reason", pa.string(), "why the metrics are null; null if they are not"),
    ]
)
"""Labelled photos: one row per category and detector."""


def document_columns(schema: pa.Schema) -> str:
    """Returns a Markdown table of a schema's columns: name, type and description, as the pages for analysts show it."""
    lines = [
        f"| `{field.name}` | {field.type} | {(field.metadata or {})[b'description'].decode()} |" for field in schema
    ]
    return "\n".join(["| column | type | meaning |", "| --- | --- | --- |", *lines])


def format_reason(code: str, detail: str) -> str:
    """Formats a value of the column ``error``: a reason code for machines, a detail for people, on one line."""
    return f"{code}: {' '.join(detail.split())}"


NOT_FINITE = format_reason("not_finite", "the detector gave no finite score")
"""Why a photo has failed whose score is no number."""

RETRIED_CODES = ("access_denied", "archived", "encryption_key", "refused", "storage", "changed", "lost", "process_died")
"""Reason codes that say nothing about the bytes themselves: a later run tries such objects again."""
