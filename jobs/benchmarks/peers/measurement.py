"""Contestants side by side: AUROC of each on the same labelled photos, and their speed in interleaved passes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from model.statistics.evaluation import compute_auroc

Score = Callable[[Path], npt.NDArray[np.float64]]
"""Scores the JPEG files of a folder, in the order of their names: (N,), higher is more anomalous."""


@dataclass(frozen=True)
class LabelledFolder:
    """Photos of one category as files on a local disk, numbered ``0000.jpg`` and so on.

    Attributes:
        name: ``<data set>/<category>``.
        train: folder of flawless photos.
        test: folder of photos to score.
        is_defective: (M,) of the test photos, in the order of their names.
    """

    name: str
    train: Path
    test: Path
    is_defective: npt.NDArray[np.bool_]


class UnfittedError(Exception):
    """A contestant cannot learn these photos, and would not another time; the message says why, in one line."""


class Contestant(Protocol):
    """A kind of detector, ours or a peer's."""

    @property
    def name(self) -> str:
        """In tables."""

    @property
    def side(self) -> Literal["ours", "anomalib"]:
        """Whose it is."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What it is made of, for the JSON; a fit may add to it."""

    @property
    def identity(self) -> str:
        """All that decides its scores, but for photos and seed."""

    @property
    def has_auroc(self) -> bool:
        """Whether its AUROC means anything; otherwise it is fitted once, for its speed."""

    def fit(self, photos: LabelledFolder, *, seed: int) -> Score:
        """Learns the flawless photos of one category, without a look at test photos; returns what scores.

        Raises:
            UnfittedError: it cannot learn these.
        """


@dataclass
class Fitted:
    """What a contestant came to.

    Attributes:
        score: fitted on the first category with seed 0.
        fit_cpu_s: CPU seconds that took.
        auroc: category -> AUROC of each seed that could be fitted.
        scores: category -> seed -> its test photos' scores (M,), of the same seeds.
        failures: category -> why a seed could not be.
    """

    score: Score
    fit_cpu_s: float
    auroc: dict[str, list[float]] = field(default_factory=dict)
    scores: dict[str, dict[int, npt.NDArray[np.float64]]] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """One timed pass over the photos."""

    cpu_s: float
    wall_s: float


def fit_first(contestants: Sequence[Contestant], photos: LabelledFolder) -> tuple[dict[str, Fitted], dict[str, str]]:
    """Fits every contestant on one category with seed 0.

    Returns:
        What each came to, and why others could not be fitted, by name.
    """
    found: dict[str, Fitted] = {}
    left_out: dict[str, str] = {}
    for contestant in contestants:
        began_s = time.process_time()
        try:
            score = contestant.fit(photos, seed=0)
        except UnfittedError as error:
            left_out[contestant.name] = str(error)
            print(f"{contestant.name} is left out, it cannot learn {photos.name}: {error}", flush=True)
            continue
        found[contestant.name] = Fitted(score, time.process_time() - began_s)
        print(f"{contestant.name}: fitted on {photos.name} in {found[contestant.name].fit_cpu_s:.0f} CPU s", flush=True)
    return found, left_out


def find_defects(
    contestants: Sequence[Contestant],
    fitted: Mapping[str, Fitted],
    categories: Sequence[LabelledFolder],
    *,
    seeds: int,
    kept: Path,
) -> Iterator[None]:
    """Adds scores and AUROC of every contestant that has one, category and seed to ``fitted``; yields after each.

    A seed that cannot be fitted becomes a failure there. What `fit_first` fitted on the first category is not fitted
    again, and what lies in the folder ``kept`` from an earlier run with the same photos and settings is not measured
    again.
    """
    kept.mkdir(parents=True, exist_ok=True)
    comparable = [contestant for contestant in contestants if contestant.has_auroc]
    for photos, seed, contestant in product(categories, range(seeds), comparable):
        mine = fitted[contestant.name]
        ready = mine.score if photos is categories[0] and seed == 0 else None
        about = f"{contestant.name} on {photos.name}, seed {seed}"
        try:
            scores = find_scores(contestant, photos, seed=seed, ready=ready, kept=kept)
        except UnfittedError as error:
            mine.failures.setdefault(photos.name, []).append(f"seed {seed}: {error}")
            print(f"{about}: {error}", flush=True)
        else:
            value = compute_auroc(photos.is_defective, scores)
            mine.auroc.setdefault(photos.name, []).append(value)
            mine.scores.setdefault(photos.name, {})[seed] = scores
            print(f"{about}: AUROC {100 * value:.2f} %", flush=True)
        yield


def find_scores(
    contestant: Contestant, photos: LabelledFolder, *, seed: int, ready: Score | None, kept: Path
) -> npt.NDArray[np.float64]:
    """Reads the test photos' scores (M,) from ``kept``, or finds and keeps them; ``ready`` is what has been fitted."""
    file = kept / f"{contestant.name}.{name_measurement(contestant, photos)}.seed{seed}.npy"
    if not file.exists():
        score = ready or contestant.fit(photos, seed=seed)
        np.save(file, score(photos.test))
    scores: npt.NDArray[np.float64] = np.load(file, allow_pickle=False)
    return scores


def name_measurement(contestant: Contestant, photos: LabelledFolder) -> str:
    """Returns 12 hex digits that name a contestant with the bytes and labels of its photos."""
    parts = [
        contestant.identity,
        hash_folder(photos.train),
        hash_folder(photos.test),
        photos.is_defective.tobytes().hex(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def hash_folder(folder: Path) -> str:
    """Hashes the content of a folder's files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def time_all(scores: Mapping[str, Score], folder: Path, *, repeats: int) -> dict[str, list[Pass]]:
    """Times every contestant in turn, ``repeats`` times, after one pass of each that warms it up."""
    for score in scores.values():
        score(folder)
    found: dict[str, list[Pass]] = {name: [] for name in scores}
    for repeat in range(1, repeats + 1):
        for name, score in scores.items():
            found[name].append(time_pass(score, folder))
        print(
            f"repeat {repeat}: " + ", ".join(f"{name} {one[-1].cpu_s:.2f} CPU s" for name, one in found.items()),
            flush=True,
        )
    return found


def time_pass(score: Score, folder: Path) -> Pass:
    """Scores a folder once and returns its CPU and wall seconds."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    score(folder)
    return Pass(time.process_time() - cpu_s, time.perf_counter() - wall_s)
