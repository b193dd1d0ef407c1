"""The calibration that new scores make: alone, or together with those of before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import ks_2samp

from jobs.detectors.config import RecalibrateConfig
from jobs.detectors.registry import RegisteredDetector
from jobs.errors import RequestError
from model.statistics.calibration import Calibration, describe_shortage

MAX_SURPRISE = 0.01
"""Photos join a calibration whose scores differ so much with a probability of at least this, if they are alike."""


def build_calibration(rows: pa.Table, config: RecalibrateConfig, *, parent: RegisteredDetector) -> Calibration:
    """Builds the new calibration; prints what the old one made of these photos, and whether they are too few."""
    calibration = Calibration(scores=choose_scores(rows["score"].to_numpy(), config, before=parent.calibration))
    rate, confidence = config.false_alarm_rate, config.confidence
    if said := describe_shortage(len(calibration.scores), false_alarm_rate=rate, confidence=confidence):
        print(f"warning: {said}. Add photos or raise --false-alarm-rate")
    if parent.calibration is not None:
        flagged = pc.sum(rows["is_anomaly"]).as_py() or 0
        print(
            f"the calibration before reports {flagged} of these {len(rows)} flawless photos "
            f"({flagged / len(rows):.1%}) at a false-alarm rate of {rate:g}"
        )
        both = (parent.calibration, calibration)
        before, now = (format_threshold(one.find_threshold(rate, confidence=confidence)) for one in both)
        surely = "" if confidence is None else f" with confidence {confidence:g}"
        print(f"threshold at {rate:g}{surely}: {before} before, {now} now")
    return calibration


def choose_scores(
    scores: npt.NDArray[np.float64], config: RecalibrateConfig, *, before: Calibration | None
) -> tuple[float, ...]:
    """Chooses what calibrates: the new photos alone, or with those of before where their verdicts join them.

    Old and new photos calibrate together only where their scores look alike: else they are exchangeable with no
    night's, neither with the old ones nor with the new. Photos of equal score as one of before are in there already.

    Args:
        scores: (m,) of the new photos.
        config: the request.
        before: calibration of the detector.

    Raises:
        RequestError: the new photos score differently.
    """
    if config.verdicts is None or config.replace or before is None:
        return tuple(scores.tolist())
    known = np.array(before.scores)
    near = known[np.clip(np.searchsorted(known, scores), 0, len(known) - 1)]
    is_known = np.isclose(scores, near, rtol=1e-9, atol=0)
    fresh = scores[~is_known]
    if is_known.any():
        print(f"{is_known.sum()} of {len(scores)} photos calibrate this detector already")
    found = ks_2samp(fresh, known) if len(fresh) else None
    if found is not None and found.pvalue < MAX_SURPRISE:
        raise RequestError(
            f"the {len(fresh)} photos found good score differently from the {len(known)} calibration photos (distance "
            f"{found.statistic:.2f}, probability {found.pvalue:.2g}): together they promise nothing; give --replace to "
            "calibrate on them alone"
        )
    print(f"{len(fresh)} photos join {len(known)}: the promise is for photos that are like both")
    return (*before.scores, *fresh.tolist())


def format_threshold(threshold: float | None) -> str:
    """Formats a threshold with 6 digits; ``none`` where there is none."""
    return "none" if threshold is None else f"{threshold:.6g}"
