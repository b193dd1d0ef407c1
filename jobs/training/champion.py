"""Chooses which of a category's new detectors becomes its champion: on flawless photos, never on the test split.

**Flawless photos cannot tell** which variant finds more defects. Features that carry less are easier to predict, so the
likelihood of held-out photos prefers the variant that has lost most: joint training of attention lowers the loss and
the AUROC together. AUROC on synthetic defects had a rank correlation of 0.22 with the real gain, and the collapse guard
stops disasters but predicts no gains (infra/decisions).

**The rule**, therefore:

1. A detector without calibration, or with features outside the limits of the collapse guard, cannot be champion.
2. The variant is the first in the order of ``variants``. The order is chosen beforehand, on evidence from other data.
   A later variant is taken where all detectors of the earlier ones failed.
3. Among the seeds of that variant, the lowest loss on held-out flawless photos wins, in standardized features
   (`model.training.held_out_loss`). Their features are the same or trained alike, so the loss says how well the flow
   fits. Without such photos, the first seed wins.
4. Only a detector that this call has trained replaces a champion, and only the one that the call found. What an earlier
   call trained had its chance: since then a person may have rolled it back, or a search promoted a better one.
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
        validation_loss: of held-out flawless photos, in nats per dimension of standardized features; None without.
        problems: what the collapse guard finds wrong, empty if nothing.
        calibration_photos: how many scores it is calibrated with.
        is_new: trained by this call, not found from an earlier one.
    """

    detector_id: str
    variant: str
    seed: int
    validation_loss: float | None
    problems: Sequence[str]
    calibration_photos: int
    is_new: bool = True


def choose_champion(candidates: Iterable[Candidate], *, variants: Sequence[str]) -> Candidate | None:
    """Returns the champion of one category; None where no detector is fit to be one.

    Args:
        candidates: detectors of one category, of these variants.
        variants: the preferred one first.
    """
    fit = [candidate for candidate in candidates if candidate.calibration_photos and not candidate.problems]
    return min(fit, key=lambda candidate: _rank_candidate(candidate, variants), default=None)


def _rank_candidate(candidate: Candidate, variants: Sequence[str]) -> tuple[int, float, int]:
    loss = math.inf if candidate.validation_loss is None else candidate.validation_loss
    return variants.index(candidate.variant), loss, candidate.seed
