"""Defects that people confirmed in scored archives, as the validation defects of a search."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.archive.mvtec import LABELLED, select_split
from jobs.decoding.fingerprints import group_fingerprints
from jobs.review.copies import read_confirmed_defects
from jobs.review.defects import list_confirmed_defects
from jobs.tables.manifest import number_photos
from jobs.tables.schema import MANIFEST
from jobs.training.planning import leave_out_defects
from model.pictures.rules import PixelRules
from tuning.choice.grouping import group_some

CONFIRMED = "confirmed"
"""Label of such a photo; what is wrong with it, the verdict does not say."""


def use_confirmed_defects(rows: pa.Table, results: str, *, category: str, rules: PixelRules) -> pa.Table:
    """Takes confirmed defects into the validation photos of LABELLED rows, and out of the training photos.

    Those that are in ``test/`` too, as copies or nearly, stay there alone: the test must not know what chose.

    Args:
        rows: of the data set.
        results: of jobs.score, with its verdicts.
        category: of both.
        rules: how photos become pixels.

    Raises:
        RequestError: no defect is confirmed.
    """
    confirmed = label_confirmed(list_confirmed_defects(results, category))
    test = select_split(rows, "test")
    both = pa.concat_tables([test, confirmed])
    groups = group_some(both, np.arange(len(both)), group_fingerprints, rules=rules)
    is_new = ~np.isin(groups[len(test) :], groups[: len(test)])
    train = select_split(rows, "train")
    defects = read_confirmed_defects(results, rules=rules)
    kept = leave_out_defects(train, defects, place=results, category=category)
    others = rows.filter(pc.not_equal(rows["split"], "train"))
    print(describe_confirmed(int(is_new.sum()), in_test=int((~is_new).sum()), place=results))
    return number_photos(pa.concat_tables([kept, others, confirmed.filter(pa.array(is_new))]))


def label_confirmed(manifest: pa.Table) -> pa.Table:
    """Returns MANIFEST rows as LABELLED rows of the split validation."""
    words = [pa.array([word] * len(manifest), pa.string()) for word in ("validation", CONFIRMED)]
    return pa.table([*manifest.select(MANIFEST.names).columns, *words], schema=LABELLED)


def describe_confirmed(count: int, *, in_test: int, place: str) -> str:
    """Says in a line how many confirmed defects judge trials, and how many do not."""
    said = f"{count} defects confirmed in {place} are validation photos"
    return said + (f"; {in_test} are in test/ and stay there" if in_test else "")
