"""The final comparison: the winner and the presets, several seeds each, on the test photos that nothing has seen.

Each detector is trained as in a trial and scores the test photos, in a Ray task of its own, of one worker. It is
calibrated on flawless photos that no judgement has seen. Those of the winner are registered under ``tuned.seed<k>``;
presets only compare.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import torch

from jobs.cluster.task_pool import FAILED, read_outcomes, run_and_keep
from jobs.detectors import registry
from jobs.detectors.lineage import build_lineage
from jobs.detectors.registration import register_detector, score_photos
from jobs.errors import JobError, one_line
from jobs.evaluation.comparison_report import build_evaluated_rows
from jobs.evaluation.flawless import make_outcome_promises
from jobs.evaluation.metrics import DetectorKey
from jobs.storage import uris
from jobs.training.history import describe_epochs
from model.detector import AttentDifferNet, build_detector
from model.inference.detector import build_scorer
from model.localization.fitting import fit_positions
from model.process import prepare_process
from model.statistics.false_alarms import Promise
from model.training.photos import InMemory
from tuning.config import SearchConfig
from tuning.space.space import Configuration
from tuning.trials.features import Extractor
from tuning.trials.measure import train_and_judge
from tuning.trials.photos import SearchPhotos, to_tensor
from tuning.trials.run import count_concurrent_trials
from tuning.trials.study import hash_configuration
from tuning.trials.trial import TrialSettings

TUNED = "tuned"
"""The winner's name, in tables and aliases."""
_FOLDER = "final"


@dataclass(frozen=True)
class FinalTraining:
    """One detector of the final comparison.

    Attributes:
        name: the preset's, or `TUNED`.
        configuration: with the seed.
        where: of the outcome.
    """

    name: str
    configuration: Configuration
    where: str

    @property
    def seed(self) -> int:
        """Seed of the detector."""
        return self.configuration.detector.seed

    def __str__(self) -> str:
        """Names the training in messages."""
        return self.alias

    @property
    def alias(self) -> str:
        """Alias in the registry."""
        return f"{self.name}.seed{self.seed}"


@dataclass(frozen=True)
class FinalSettings:
    """What all trainings of the final comparison share, for the way to their tasks."""

    category: str
    registry: str
    origin: Mapping[str, Any]


def plan_final(
    config: SearchConfig, configurations: Mapping[str, Configuration], *, photos_hash: str
) -> list[FinalTraining]:
    """Plans the training of all detectors, seed by seed.

    Args:
        config: of the search.
        configurations: name -> configuration.
        photos_hash: of all photos, the test's included.
    """
    found = []
    for seed in range(config.seeds):
        for name, configuration in configurations.items():
            detector = configuration.detector.model_copy(update={"seed": seed, "variant": name})
            key = hash_configuration(configuration, photos_hash=photos_hash, seeds=[seed])
            where = uris.join(config.results, _FOLDER, f"{name}.seed{seed}.{key}.json")
            found.append(FinalTraining(name, Configuration(detector, configuration.optimizer), where))
    return found


def run_final(
    config: SearchConfig, units: Sequence[FinalTraining], trials: TrialSettings, test: Mapping[int, Any]
) -> list[Mapping[str, Any]]:
    """Trains and tests what is left; returns the outcomes of all, those that failed with their reason.

    Args:
        config: of the search.
        units: all detectors.
        trials: photos, weights and resources.
        test: image size -> reference to SearchPhotos whose labelled ones are the test photos.
    """
    by_uri = {unit.where: unit for unit in units}
    outcomes = read_outcomes(by_uri)
    share = FinalSettings(
        config.category, config.registry, build_lineage(config.identity, manifest_hash=trials.shared.photos_hash)
    )
    remote: Any = ray.remote(num_cpus=1, num_gpus=trials.gpus_per_worker)(train_final)

    def work(unit: FinalTraining) -> Mapping[str, Any]:
        outcome: Mapping[str, Any] = ray.get(
            remote.remote(unit, share, trials, test[unit.configuration.detector.image_size])
        )
        return outcome

    outcomes |= run_and_keep(
        {uri: unit for uri, unit in by_uri.items() if uri not in outcomes},
        work,
        at_a_time=count_concurrent_trials(config),
        activity="final comparison",
        noun="detector",
    )
    return [{"name": unit.name, "seed": unit.seed, **outcomes[unit.where]} for unit in units]


def train_final(unit: FinalTraining, share: FinalSettings, trials: TrialSettings, test: SearchPhotos) -> dict[str, Any]:
    """Trains, calibrates, registers and tests one detector, as a Ray task.

    Returns:
        ``detector_id``, ``metrics`` on validation photos and ``scores``, test URI -> score.

    Raises:
        JobError: it failed; one line.
    """
    prepare_process()
    try:
        return train_and_test(unit, share, trials, test)
    except (RuntimeError, ValueError) as error:  # training's own do not survive the way to another process
        raise JobError(one_line(error)) from None


def train_and_test(
    unit: FinalTraining, share: FinalSettings, trials: TrialSettings, test: SearchPhotos
) -> dict[str, Any]:
    """Trains one detector, scores the test photos and registers it if it is the winner's."""
    began_s, config = time.process_time(), unit.configuration.detector
    photos: SearchPhotos = ray.get(trials.shared.photos[config.image_size])
    has_gpu = trials.gpus_per_worker > 0 and torch.cuda.is_available()
    detector = build_detector(config, ray.get(trials.shared.weights)).to("cuda" if has_gpu else "cpu")
    extractor = Extractor(photos, trials.shared.photos_hash, trials.shared.cache)
    judgement, history = train_and_judge(detector, unit.configuration.optimizer, extractor)
    fit_positions(detector, InMemory(to_tensor(photos.train)))
    scores = build_scorer(detector).score(to_tensor(test.labelled)).cpu()
    calibration = score_photos(detector, InMemory(to_tensor(photos.calibration)))
    card = {
        "category": share.category,
        "lineage": {**share.origin, "seed": config.seed},
        "photos": {"train": len(photos.train), "judging": len(photos.held_out), "calibration": len(calibration)},
        "training_photos": photos.trained_on,
        **describe_epochs(history, early=False),
        "validation_loss": None,
        "search_metrics": judgement.metrics,
    }
    is_winner = unit.name == TUNED
    return {
        "detector_id": register_winner(unit, share, detector, calibration, card) if is_winner else None,
        "metrics": judgement.metrics,
        "cpu_s": time.process_time() - began_s,
        "scores": dict(zip(test.labelled_uris, scores.tolist(), strict=True)),
        "calibration": calibration,
        "lost": {uri: why for uri, why in test.lost.items() if "/test/" in uri},
    }


def register_winner(
    unit: FinalTraining,
    share: FinalSettings,
    detector: AttentDifferNet,
    scores: Sequence[float],
    card: Mapping[str, Any],
) -> str:
    """Registers the winner, calibrated with the scores of photos that no judgement saw, under its alias.

    Returns:
        Its id.
    """
    detector_id = register_detector(detector, scores, detectors=share.registry, category=share.category, metrics=card)
    registry.set_alias(
        share.registry, share.category, alias=unit.alias, detector_id=detector_id, reason="found by a search"
    )
    return detector_id


def make_final_promises(
    category: str, outcomes: Sequence[Mapping[str, Any]], *, false_alarm_rate: float
) -> dict[DetectorKey, Promise]:
    """Makes what the calibration of every trained detector promises at a rate."""
    trained = [{**one, "category": category, "variant": one["name"]} for one in outcomes]
    return make_outcome_promises(trained, false_alarm_rate=false_alarm_rate)


def build_final_rows(category: str, manifest: pa.Table, outcomes: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Builds EVALUATED rows of the test photos for every detector that was trained."""
    trained = [{**one, "category": category, "variant": one["name"]} for one in outcomes if FAILED not in one]
    return build_evaluated_rows(trained, {category: manifest})
