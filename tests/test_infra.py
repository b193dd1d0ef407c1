"""What runs the project: configurations, image and manifests say the same as the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import parse_config
from jobs.errors import RequestError
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.scoring.config import ScoreConfig
from jobs.training.config import TrainConfig
from model.config import DetectorConfig, OptimizerConfig
from model.presets import get_preset
from model.statistics.calibration import find_min_sample_size
from tests.support.places import ROOT
from tuning.config import SearchConfig
from tuning.space.space import check_space, read_space

INFRA = ROOT / "infra"
SCORE_YAML = str(INFRA / "runs" / "score.yaml")
TRAIN_YAML = str(INFRA / "runs" / "train.yaml")


def manifests(name: str) -> list[dict[str, Any]]:
    """The documents of one KubeRay manifest."""
    return list(yaml.safe_load_all((INFRA / "kuberay" / name).read_text()))


def score_job() -> dict[str, Any]:
    """The spec of the nightly RayJob."""
    spec: dict[str, Any] = manifests("score-rayjob.yaml")[0]["spec"]
    return spec


def containers(node: object) -> list[dict[str, Any]]:
    """Every container anywhere below ``node``."""
    if isinstance(node, list):
        return [found for item in node for found in containers(item)]
    if not isinstance(node, dict):
        return []
    return list(node.get("containers", [])) + [found for item in node.values() for found in containers(item)]


# Configurations of runs


def test_the_nightly_configuration_needs_nothing_but_a_run_id() -> None:
    with pytest.raises(RequestError, match=r"^--run-id is required; see --help$"):
        parse_config(ScoreConfig, ["--config", SCORE_YAML])
    assert parse_config(ScoreConfig, ["--config", SCORE_YAML, "--run-id", "night"]).results.startswith("s3://")


def test_the_nightly_key_pattern_reads_category_site_and_date() -> None:
    config = parse_config(ScoreConfig, ["--config", SCORE_YAML, "--run-id", "night"])
    match = re.match(config.key_pattern, "insulator/line-07/2026-03-02/IMG_0001.jpg")
    assert match is not None
    assert match.groupdict() == {"category": "insulator", "site": "line-07", "captured_at": "2026-03-02"}


def test_the_training_configuration_needs_nothing_but_a_category() -> None:
    with pytest.raises(RequestError, match=r"^--category is required; see --help$"):
        parse_config(TrainConfig, ["--config", TRAIN_YAML])


def test_the_training_configuration_is_the_papers_procedure_on_the_preset() -> None:
    config = parse_config(TrainConfig, ["--config", TRAIN_YAML, "--category", "insulator"])
    assert config.detector == get_preset("attentdiffernet_se")
    assert config.optimizer == OptimizerConfig()


def test_the_detector_section_names_fields_of_a_detector() -> None:
    given = yaml.safe_load(Path(TRAIN_YAML).read_text())["detector"]
    assert set(given) <= set(DetectorConfig.model_fields)


def test_five_hundred_photos_calibrate_the_rate_that_scoring_asks_for() -> None:
    train = parse_config(TrainConfig, ["--config", TRAIN_YAML, "--category", "insulator"])
    score = parse_config(ScoreConfig, ["--config", SCORE_YAML, "--run-id", "night"])
    assert train.false_alarm_rate == score.false_alarm_rate
    assert find_min_sample_size(score.false_alarm_rate) == 99  # the figure in score.yaml's comment
    assert round(500 * train.calibration_fraction) >= 99  # and the one in train.yaml's


# KubeRay


def test_the_entrypoint_is_a_complete_scoring_request() -> None:
    words = shlex.split(score_job()["entrypoint"])
    assert words[:3] == ["python", "-m", "jobs.score"]
    mounted = "/etc/attentdiffernet/score.yaml"
    config = parse_config(ScoreConfig, [SCORE_YAML if word == mounted else word for word in words[3:]])
    assert config.run_id == "nightly-run-date"


def test_the_configuration_is_mounted_where_the_entrypoint_reads_it() -> None:
    words = shlex.split(score_job()["entrypoint"])
    head = score_job()["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in head["containers"][0]["volumeMounts"]}
    folder, name = words[words.index("--config") + 1].rsplit("/", 1)
    assert name == Path(SCORE_YAML).name
    assert {"name": mounts[folder], "configMap": {"name": "score-nightly"}} in head["volumes"]


def test_the_score_job_is_a_ray_v1_job_that_cleans_up_and_retries() -> None:
    job = manifests("score-rayjob.yaml")[0]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    assert job["spec"]["backoffLimit"] > 0


def test_the_job_sets_what_ray_data_needs_on_every_node() -> None:
    variables = yaml.safe_load(score_job()["runtimeEnvYAML"])["env_vars"]
    assert variables == {"RAY_DATA_USE_DATASOURCE_V2": "0", "OMP_NUM_THREADS": "1"}


def test_the_cluster_refuses_strangers() -> None:
    assert score_job()["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_cluster_runs_the_pinned_ray() -> None:
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert score_job()["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_the_largest_cluster_has_room_for_every_scoring_actor_and_for_decoding() -> None:
    config = parse_config(ScoreConfig, ["--config", SCORE_YAML, "--run-id", "night"])
    group = score_job()["rayClusterSpec"]["workerGroupSpecs"][0]
    cpus = group["maxReplicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert config.scoring.actors is not None
    assert config.scoring.actors < cpus


@pytest.mark.parametrize("name", ["score-rayjob.yaml", "nightly-cronjob.yaml", "search-rayjob.yaml"])
def test_no_container_runs_as_root_or_without_limits(name: str) -> None:
    found = containers(manifests(name))
    assert found
    for container in found:
        context = container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["allowPrivilegeEscalation"] is False
        assert set(container["resources"]["limits"]) >= {"cpu", "memory"}


def test_the_nightly_job_creates_the_score_job_under_the_date() -> None:
    cron, *access = manifests("nightly-cronjob.yaml")
    assert (cron["apiVersion"], cron["kind"]) == ("batch/v1", "CronJob")
    command = containers(cron)[0]["args"][0]
    token = re.search(r"s/([^/]+)/\$\(date", command)
    assert token is not None
    job = (INFRA / "kuberay" / "score-rayjob.yaml").read_text()
    night = next(iter(yaml.safe_load_all(job.replace(token[1], "2026-03-02"))))
    assert night["metadata"]["name"] == "score-2026-03-02"
    assert "--run-id nightly-2026-03-02" in night["spec"]["entrypoint"]
    role = next(document for document in access if document["kind"] == "Role")
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]


def test_the_comparison_of_the_readme_parses_and_varies_nothing_but_what_it_says() -> None:
    argv = ["--config", str(INFRA / "runs" / "comparison.yaml"), "--data", "/a,/b", "--output", "/o"]
    config = parse_config(ComparisonConfig, argv)
    best, bare = (config.make_detector_config(name, seed=1).model_dump() for name in config.variants[-2:])
    assert {name for name in best if best[name] != bare[name]} == {"variant", "attention", "attention_training"}


# Searches


def test_the_search_of_the_readme_needs_nothing_but_photos_and_a_place() -> None:
    flags = ["--config", str(INFRA / "runs" / "search.yaml"), "--data", "/d", "--category", "c", "--results", "/r"]
    config = parse_config(SearchConfig, flags)
    check_space(read_space(config))
    assert config.detector.weights.startswith("weights/")


def test_the_search_job_s_entrypoint_is_a_complete_request_on_the_pinned_ray() -> None:
    job = manifests("search-rayjob.yaml")[0]["spec"]
    words = shlex.split(job["entrypoint"])
    assert words[:3] == ["python", "-m", "tuning.search"]
    file = {"/etc/attentdiffernet/search-fleet.yaml": str(INFRA / "runs" / "search-fleet.yaml")}
    config = parse_config(SearchConfig, [file.get(word, word) for word in words[3:]])
    check_space(read_space(config))
    assert config.promote
    assert job["rayClusterSpec"]["rayVersion"] == score_job()["rayClusterSpec"]["rayVersion"]
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_every_gpu_of_the_search_job_has_room_for_the_trials_that_share_it() -> None:
    group = manifests("search-rayjob.yaml")[0]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    config = parse_config(SearchConfig, ["--config", str(INFRA / "runs" / "search-fleet.yaml")])
    trials_per_node = int(limits["nvidia.com/gpu"]) / config.gpus_per_worker
    assert trials_per_node == 2
    assert int(limits["cpu"]) >= trials_per_node  # a core for each
