"""What detectors are judged by: the metrics mean what they say, and shared features change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from scipy.stats import spearmanr

from model.config import DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet
from model.image import decode_image
from model.statistics.evaluation import compute_auroc
from model.training.metrics import EpochMetrics
from tests.support.detectors import TINY
from tuning.trials.features import Extractor, FeatureCache, Features, compute_gaussian_loss, hash_extractor
from tuning.trials.judge import average_seeds, compute_held_out_loss, correlate_ranks, judge
from tuning.trials.measure import train_and_judge
from tuning.trials.photos import SearchPhotos, add_synthetic_defects, shift_photos


class _Cache:
    """A FeatureCache without a cluster: each method has a ``remote`` that gives a reference to its answer."""

    def __init__(self) -> None:
        self.kept = FeatureCache()
        self.get, self.put = _Method(self.kept.get), _Method(self.kept.put)


class _Method:
    def __init__(self, method: object) -> None:
        self.remote = method


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> _Cache:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    return _Cache()


@pytest.fixture(scope="module")
def photos(drawn: Path) -> SearchPhotos:
    def images(folder: str, count: int) -> np.ndarray:
        paths = sorted((drawn / "data" / "insulator" / folder).iterdir())[:count]
        return np.stack([decode_image(path.read_bytes(), size=128).numpy() for path in paths])

    good = images("train/good", 24)
    judged = np.concatenate([images("test/good", 8), images("test/rust", 8)])
    labels = np.repeat([False, True], 8)
    return SearchPhotos(good[:16], good[16:], judged, labels, [str(n) for n in range(16)], {}, [])


def _config(**more: object) -> DetectorConfig:
    return DetectorConfig.model_validate({**TINY, **more})


def _outcome(
    config: DetectorConfig, photos: SearchPhotos, cache: _Cache
) -> tuple[dict[str, float | None], list[float]]:
    detector = AttentDifferNet(config)
    extractor = Extractor(photos, "hash", cache)
    found, epochs = train_and_judge(detector, OptimizerConfig(epochs=2), extractor)
    return found.metrics, [epoch.loss for epoch in epochs]


SE = {"attention": {"conv5": {"kind": "se"}}, "attention_training": "pretext"}


@pytest.mark.parametrize("more", [{}, SE], ids=["plain", "attended"])
@pytest.mark.slow
def test_features_from_the_cache_give_the_very_same_training(
    more: dict[str, object], photos: SearchPhotos, cache: _Cache
) -> None:
    first = _outcome(_config(**more), photos, cache)
    again = _outcome(_config(**more), photos, cache)
    assert cache.kept.counts == {"found": 1, "computed": 1}
    assert again == first
    other = _outcome(_config(**more, flow={"blocks": 3, "hidden_width": 16}), photos, cache)
    assert cache.kept.counts == {"found": 2, "computed": 1}
    assert other != first


def test_a_key_names_the_extractor_and_nothing_that_comes_after_it() -> None:
    def key(**more: object) -> str:
        return hash_extractor(DetectorConfig.model_validate({"weights": "imagenet", **more}), photos_hash="p")

    assert key() == key(flow={"blocks": 2}) == key(feature_scaling="whiten") == key(seed=3) == key(train_views=2)
    assert len({key(), key(pooling="average_max"), key(views=4), key(image_size=512), key(**SE), key(scales=2)}) == 6
    assert key(**SE) != key(**SE, seed=3)  # attention learns differently
    assert key(**SE) != key(**SE, pretext={"steps": 5})


def test_the_oldest_features_go_when_there_are_too_many() -> None:
    kept = FeatureCache(max_bytes=2500)
    for name in "abc":
        kept.put(name, {"train": np.zeros(125)})  # 1000 bytes each
    assert kept.get("a") is None
    assert kept.get("c") is not None


@pytest.mark.slow
def test_joint_training_is_judged_by_the_features_it_ends_with(photos: SearchPhotos, cache: _Cache) -> None:
    config = _config(attention={"conv5": {"kind": "se"}}, attention_training="joint", collapse_guard=False)
    detector = AttentDifferNet(config)
    extractor = Extractor(photos, "hash", cache)
    found, _ = train_and_judge(detector, OptimizerConfig(epochs=2, learning_rate=1e-2), extractor)
    assert cache.kept.counts["computed"] == 0
    scores = detector.score(torch.from_numpy(photos.labelled)).numpy()
    assert found.metrics["auroc"] == pytest.approx(compute_auroc(photos.labels, scores), abs=1e-6)


@pytest.mark.slow
def test_the_metrics_are_those_of_the_detectors_own_scores(photos: SearchPhotos, cache: _Cache) -> None:
    detector = AttentDifferNet(_config())
    extractor = Extractor(photos, "hash", cache)
    found, _ = train_and_judge(detector, OptimizerConfig(epochs=2), extractor)
    held_out = torch.from_numpy(photos.held_out)
    plain = detector.score(held_out).numpy()
    np.testing.assert_allclose(found.held_out, plain, rtol=1e-5)
    labelled = detector.score(torch.from_numpy(photos.labelled)).numpy()
    assert found.metrics["auroc"] == pytest.approx(compute_auroc(photos.labels, labelled))
    agreement = spearmanr(plain, detector.score(shift_photos(held_out)).numpy()).statistic
    assert found.metrics["shift_agreement"] == pytest.approx(agreement, abs=1e-6)
    synthetic = detector.score(add_synthetic_defects(held_out)).numpy()
    expected = compute_auroc(np.repeat([False, True], len(plain)), np.concatenate([plain, synthetic]))
    assert found.metrics["synthetic_auroc"] == pytest.approx(expected)


def test_the_gaussian_s_loss_is_torch_s() -> None:
    from sklearn.covariance import LedoitWolf

    rng = torch.Generator().manual_seed(0)
    train, held_out = torch.randn(40, 6, generator=rng) * 3 + 5, torch.randn(9, 6, generator=rng) * 3 + 5
    unit = train.double().std(0, correction=0).mean()
    fitted = LedoitWolf().fit(((train.double() - train.double().mean(0)) / unit).numpy())
    covariance = torch.from_numpy(fitted.covariance_) * unit**2
    gaussian = torch.distributions.MultivariateNormal(train.double().mean(0), covariance)
    expected = -gaussian.log_prob(held_out.double()).mean() / 6 - 0.5 * np.log(2 * np.pi)
    assert float(compute_gaussian_loss(train, held_out)) == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("scaling", ["none", "global", "channel", "whiten"])
def test_gain_over_the_gaussian_does_not_depend_on_the_unit_of_features(scaling: str) -> None:
    """An untrained identity flow behind whitening is the Gaussian: no gain; and shrunk features change nothing."""
    rng = torch.Generator().manual_seed(1)
    detector = AttentDifferNet(
        _config(feature_scaling=scaling, scales=1, flow={"blocks": 2, "hidden_width": 8, "start": "identity"})
    ).eval()
    dim = detector.feature_dim
    mixed = torch.randn(dim, dim, generator=rng) / dim**0.5
    parts = {name: torch.randn(12, 2, dim, generator=rng) @ mixed for name in ("train", "held_out")}

    def gain(shrink: float) -> float:
        shrunk = {name: value * shrink for name, value in parts.items()}
        loss = float(compute_gaussian_loss(shrunk["train"].flatten(0, 1), shrunk["held_out"].flatten(0, 1)))
        if scaling != "none":
            detector.fit_feature_scaling(shrunk["train"].flatten(0, 1))
        features = Features(
            **shrunk,
            shifted=shrunk["held_out"],
            synthetic=shrunk["held_out"],
            labelled=shrunk["train"],
            gaussian_loss=loss,
        )
        return loss - compute_held_out_loss(detector, features)

    if scaling == "none":  # such a flow has to find the unit by itself: there the untrained one does gain
        assert abs(gain(1.0) - gain(0.01)) > 1
        return
    assert gain(1.0) == pytest.approx(gain(0.01), abs=1e-3)
    if scaling == "whiten":
        assert gain(1.0) == pytest.approx(0, abs=0.02)


@pytest.mark.slow
def test_without_flawless_validation_photos_held_out_ones_stand_for_them(photos: SearchPhotos, cache: _Cache) -> None:
    only_defects = SearchPhotos(
        photos.train, photos.held_out, photos.labelled[8:], photos.labels[8:], photos.labelled_uris[8:], {}, []
    )
    metrics, _ = _outcome(_config(), only_defects, cache)
    assert metrics["auroc"] is not None
    none = SearchPhotos(photos.train, photos.held_out, photos.labelled[:0], photos.labels[:0], [], {}, [])
    metrics, _ = _outcome(_config(pooling="average_max"), none, cache)
    assert metrics["auroc"] is None


def test_scores_that_are_not_finite_fail_the_trial(photos: SearchPhotos, cache: _Cache) -> None:
    detector = AttentDifferNet(_config())
    features = Extractor(photos, "hash", cache).prepare(detector)
    assert features is not None
    next(weight for weight in detector.flow.parameters() if weight.requires_grad).data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"8 of 8 scores of held_out photos are not finite"):
        judge(detector, features, photos.labels)


@pytest.mark.slow
def test_agreement_over_seeds_is_the_mean_rank_correlation(photos: SearchPhotos, cache: _Cache) -> None:
    found = []
    for seed in range(3):
        detector = AttentDifferNet(_config(seed=seed))
        one, _ = train_and_judge(detector, OptimizerConfig(epochs=1), Extractor(photos, "hash", cache))
        found.append(one)
    metrics = average_seeds(found)
    pairs = [correlate_ranks(found[a].held_out, found[b].held_out) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert metrics["seed_agreement"] == pytest.approx(np.mean(pairs))
    assert metrics["auroc"] == pytest.approx(np.mean([one.metrics["auroc"] for one in found]))
    assert average_seeds(found[:1])["seed_agreement"] is None


def test_rank_correlation_is_spearman_s_with_ties() -> None:
    first, second = [1.0, 2.0, 2.0, 5.0, 3.0], [0.1, 0.5, 0.2, 0.2, 9.0]
    assert correlate_ranks(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert correlate_ranks([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0.0


@pytest.mark.slow
def test_metrics_at_a_rung_are_told_and_the_last_epoch_s_are_returned(photos: SearchPhotos, cache: _Cache) -> None:
    told: list[tuple[int, float | None]] = []
    extractor = Extractor(photos, "hash", cache)
    detector = AttentDifferNet(_config())
    final, epochs = train_and_judge(
        detector,
        OptimizerConfig(epochs=4, learning_rate=1e-2),
        extractor,
        rungs={1, 3},
        tell=lambda epoch, found: told.append((epoch, found.metrics["held_out_gain"])),
    )
    assert [epoch for epoch, _ in told] == [1, 3]
    assert isinstance(epochs[-1], EpochMetrics)
    assert final.metrics["held_out_gain"] not in [gain for _, gain in told]
