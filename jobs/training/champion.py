"""Which of a category's new detectors becomes its champion: decided on flawless photos, never on the test split.

**What flawless photos cannot tell** is which variant finds more defects. The likelihood of held-out photos is no figure
of it: features that carry less are easier to predict, so between variants it prefers whatever has lost most (joint
training of attention lowers the loss and the AUROC together). AUROC on synthetic defects had a rank correlation of 0.22
with the real gain, and the collapse guard stops disasters but predicts no gains (our study, infra/decisions.md). Nor
does the mean over photos of anything settle it while a category has a dozen of them held out.

**The rule**, therefore:

1. Out of the running is whoever has no calibration, or whose features lie outside the limits of the collapse guard.
2. The variant is the first in the order of ``variants``: the order is a choice made beforehand and on evidence from
   other data, such as labelled photos that are not of this test split. A later variant is taken where all detectors of
   the earlier ones failed.
3. Among the seeds of that variant, the lowest loss on held-out flawless photos, in standardised features
   (`model.training.held_out_loss`): there the features are the same, or trained alike, and the loss says how well the
   flow fits.
   Without such photos, the first seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A trained and registered detector.

    Attributes:
        detector_id: its id.
        variant: its preset.
        seed: its seed.
        validation_loss: of held-out flawless photos, in nats per dimension of standardised features; None without.
        problems: what the collapse guard finds wrong, empty if nothing.
        calibration_photos: how many scores it is calibrated with.
    """

    detector_id: str
    variant: str
    seed: int
    validation_loss: float | None
    problems: Sequence[str]
    calibration_photos: int


def choose_champion(candidates: Iterable[Candidate], *, variants: Sequence[str]) -> Candidate | None:
    """The champion of one category; None where nobody is fit to be one.

    Args:
        candidates: detectors of one category, of these variants.
        variants: the preferred one first.
    """
    fit = [candidate for candidate in candidates if candidate.calibration_photos and not candidate.problems]
    return min(fit, key=lambda candidate: _rank(candidate, variants), default=None)


def _rank(candidate: Candidate, variants: Sequence[str]) -> tuple[int, float, int]:
    loss = math.inf if candidate.validation_loss is None else candidate.validation_loss
    return variants.index(candidate.variant), loss, candidate.seed
