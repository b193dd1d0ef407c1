"""Who becomes champion: by the order of variants and held-out flawless photos."""

from __future__ import annotations

from jobs.training.champion import Candidate, choose_champion

VARIANTS = ("attentdiffernet_se", "differnet")


def _candidate(name: str, *, loss: float | None = 0.4, problems: tuple[str, ...] = (), photos: int = 9) -> Candidate:
    variant, seed = name.split(".seed")
    return Candidate(name, variant, int(seed), loss, problems, photos)


def _chosen(*candidates: Candidate) -> str | None:
    champion = choose_champion(candidates, variants=VARIANTS)
    return champion and champion.detector_id


def test_the_preferred_variant_wins_whatever_the_likelihoods_of_others() -> None:
    """Features that carry less are easier to predict: a lower loss is no merit between variants."""
    assert _chosen(_candidate("differnet.seed0", loss=-3.0), _candidate("attentdiffernet_se.seed0")) == (
        "attentdiffernet_se.seed0"
    )


def test_among_seeds_the_lowest_held_out_loss_wins_and_without_one_the_first_seed() -> None:
    seeds = [_candidate(f"differnet.seed{seed}", loss=loss) for seed, loss in ((0, 0.5), (2, 0.3), (1, 0.4))]
    assert _chosen(*seeds) == "differnet.seed2"
    assert _chosen(_candidate("differnet.seed1", loss=None), _candidate("differnet.seed0", loss=None)) == (
        "differnet.seed0"
    )


def test_whoever_collapsed_or_has_no_calibration_is_out_of_the_running() -> None:
    collapsed = _candidate("attentdiffernet_se.seed0", problems=("effective rank is 0.4 of the plain one",))
    uncalibrated = _candidate("attentdiffernet_se.seed1", photos=0)
    assert _chosen(collapsed, uncalibrated, _candidate("differnet.seed0")) == "differnet.seed0"
    assert _chosen(collapsed, uncalibrated) is None
