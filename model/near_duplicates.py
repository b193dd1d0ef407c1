"""Which photos show the same scene: copies saved anew, bursts, frames of a film, an item photographed twice.

Flawless parts look alike, so photos that look alike are not yet the same scene. What tells a scene is its fine
texture, at its place. Band-limited phase-only correlation (Ito et al., IEICE Transactions E87-A, 2004) compares just
that: it drops all amplitudes, and with them brightness, contrast and the look that all photos of a product share, and
keeps the phases, whose correlation has a peak of 1 where one photo is the other, moved a little.

The distance of two photos is 1 - the peak. Near-duplicates are pairs whose distance is below `MAX_DISTANCE` of the
set's own scatter, that is how near its closer pairs usually are. So parts in a fixed place before a fixed background
are no duplicates for that. The figures that chose the constants are in infra/decisions/0060.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from model.thumbnails import THUMBNAIL_SIDE

MAX_DISTANCE = 0.4
"""Of the set's scatter: nearer photos show the same scene."""
_BAND = 12  # frequencies up to this many periods a side count; finer ones are noise after a small shift
_SHIFT = 6  # pixels of the thumbnail, a tenth of its side, that two photos of a scene may lie apart
_CANDIDATES = 10  # nearest photos, by amplitudes, that are compared by phases
_COARSE = 16  # frequencies whose amplitudes choose the candidates
_SCATTER_PAIRS = 2000  # random pairs that tell the set's scatter
_CHUNK = 512  # photos, or pairs, at a time


def group_near_duplicates(thumbnails: npt.NDArray[np.float16]) -> npt.NDArray[np.int64]:
    """Groups N photos, so that those of a scene are together; chains of near-duplicates are one group.

    Args:
        thumbnails: float16 (N, 64, 64), see `model.thumbnails.make_thumbnail`.

    Returns:
        int64 (N,), a number for each photo's group, 0 upwards in the order of their first photos.
    """
    count = len(thumbnails)
    if count < 3:  # two photos have no scatter to compare their distance with
        return np.arange(count)
    spectra = _Spectra.compute(thumbnails)
    pairs = spectra.find_candidates()
    near = pairs[spectra.measure_distances(pairs) < MAX_DISTANCE * spectra.measure_scatter()]
    links = coo_array((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


@dataclass(frozen=True)
class _Spectra:
    """Fourier transforms of N thumbnails.

    Attributes:
        phases: complex64 (N, 64, 33), of absolute value 1 within the band and 0 outside.
        amplitudes: float32 (N, F), coarse log amplitudes, which a shift does not change.
        peak: of the correlation of a photo with itself.
    """

    phases: npt.NDArray[np.complex64]
    amplitudes: npt.NDArray[np.float32]
    peak: float

    @classmethod
    def compute(cls, thumbnails: npt.NDArray[np.float16]) -> _Spectra:
        """Transforms thumbnails float16 (N, 64, 64)."""
        window = np.hanning(THUMBNAIL_SIDE).astype(np.float32)
        band = _select_band()
        phases = np.empty((len(thumbnails), *band.shape), np.complex64)
        amplitudes = []
        for first in range(0, len(thumbnails), _CHUNK):
            some = thumbnails[first : first + _CHUNK].astype(np.float32)
            some -= some.mean(axis=(1, 2), keepdims=True)
            found = fft.rfft2(some * window[:, None] * window)
            size = np.abs(found)
            phases[first : first + _CHUNK] = band * found / np.maximum(size, 1e-3)
            amplitudes.append(_average_amplitudes(size))
        # Each frequency counts twice in a real transform, but those of the first column.
        return cls(phases, np.concatenate(amplitudes), float(2 * band.sum() - band[:, 0].sum()) / THUMBNAIL_SIDE**2)

    def find_candidates(self) -> npt.NDArray[np.int64]:
        """Finds the pairs (P, 2) that may be near-duplicates: each photo and those of the nearest amplitudes."""
        count = len(self.amplitudes)
        nearest = min(_CANDIDATES, count - 1)
        squares = np.square(self.amplitudes).sum(axis=1)
        found = []
        for first in range(0, count, _CHUNK):
            rows = np.arange(first, min(first + _CHUNK, count))
            distances = squares - 2 * self.amplitudes[rows] @ self.amplitudes.T
            distances[np.arange(len(rows)), rows] = np.inf
            near = np.argpartition(distances, nearest - 1, axis=1)[:, :nearest]
            found.append(np.stack([np.repeat(rows, nearest), near.ravel()], axis=1))
        return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)

    def measure_distances(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Measures the distances (P,) of pairs (P, 2), in [0, 2]."""
        found = [np.empty(0)]
        for first in range(0, len(pairs), _CHUNK):
            one, other = pairs[first : first + _CHUNK].T
            side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
            correlation = fft.irfft2(self.phases[one] * self.phases[other].conj(), s=side)
            near = np.roll(correlation, (_SHIFT, _SHIFT), axis=(1, 2))[:, : 2 * _SHIFT + 1, : 2 * _SHIFT + 1]
            found.append(1 - near.max(axis=(1, 2)) / self.peak)
        return np.concatenate(found)

    def measure_scatter(self) -> float:
        """Measures how near the nearest tenth of random pairs is; half of the median where that is even nearer.

        The tenth, as the product's look makes some photos more alike than others. The median, as among copies of less
        than ten scenes the tenth would be copies too.
        """
        rng = np.random.default_rng(0)
        pairs = rng.integers(0, len(self.phases), (_SCATTER_PAIRS, 2))
        nearest, median = np.quantile(self.measure_distances(pairs[pairs[:, 0] != pairs[:, 1]]), (0.1, 0.5))
        return float(max(nearest, median / 2))


def _select_band() -> npt.NDArray[np.float32]:
    """Returns (64, 33), 1 for the frequencies that count and 0 for the others and for the mean."""
    vertical, horizontal = np.abs(np.fft.fftfreq(THUMBNAIL_SIDE, 1 / THUMBNAIL_SIDE)), np.arange(33)
    band = np.asarray((vertical[:, None] <= _BAND) & (horizontal[None] <= _BAND), np.float32)
    band[0, 0] = 0
    return band


def _average_amplitudes(size: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Averages log amplitudes (N, 64, 33) over 2 x 2 low frequencies, (N, 128), free of brightness."""
    low = np.concatenate([size[:, -_COARSE:, :_COARSE], size[:, :_COARSE, :_COARSE]], axis=1)
    coarse = np.log(low + 1).reshape(len(size), _COARSE, 2, _COARSE // 2, 2).mean(axis=(2, 4)).reshape(len(size), -1)
    return np.asarray(coarse - coarse.mean(axis=1, keepdims=True), np.float32)
