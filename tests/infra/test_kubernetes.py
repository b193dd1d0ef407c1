"""The manifests of infra/kubernetes: known fields, one image, requests that the commands accept."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import parse_config
from jobs.cluster.telemetry import MEASURES
from jobs.detectors.signing import KEY_VARIABLE
from jobs.nights.config import NightlyConfig
from jobs.scoring.config import ScoreConfig
from jobs.tables.schema import Status
from jobs.training.config import TrainConfig
from tests.infra.fields import find_faults
from tests.support.places import ROOT
from tuning.config import SearchConfig
from tuning.space.space import check_space, read_space

KUBERNETES = ROOT / "infra" / "kubernetes"
OVERLAYS = ("aws", "gke", "minio-on-prem")
BUILT = (*(f"overlays/{name}" for name in OVERLAYS), "jobs/train", "jobs/search")
ANSWERS = {1, 2, 3}
"""Exit codes of jobs.nightly that another pod would not change."""
RAY_METRICS = {f"ray_attentdiffernet_{name}_total" for name in (*MEASURES, "photos")}
KUBE_METRICS = {
    "kube_cronjob_spec_suspend",
    "kube_cronjob_status_last_successful_time",
    "kube_job_created",
    "kube_job_failed",
    "kube_job_status_active",
    "kube_pod_info",
}
"""Of kube-state-metrics."""


def read(name: str) -> list[dict[str, Any]]:
    """The documents of one file below infra/kubernetes."""
    return [document for document in yaml.safe_load_all((KUBERNETES / name).read_text()) if document]


def files(suffix: str) -> list[Path]:
    return sorted(path for path in KUBERNETES.rglob(f"*{suffix}"))


@cache
def build(name: str) -> list[dict[str, Any]]:
    """What ``kubectl apply -k`` would send, of one folder."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl to build with")
    built = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / name)], capture_output=True, text=True, check=False, timeout=60
    )
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def pick(documents: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """The one object of a kind, or that of a name."""
    (found,) = [one for one in documents if one["kind"] == kind and one["metadata"]["name"].startswith(name)]
    return found


def containers(node: object) -> list[dict[str, Any]]:
    """Every container anywhere below ``node``."""
    if isinstance(node, list):
        return [found for item in node for found in containers(item)]
    if not isinstance(node, dict):
        return []
    return list(node.get("containers", [])) + [found for item in node.values() for found in containers(item)]


def find_value(node: object, key: str) -> list[Any]:
    """Every value under ``key`` anywhere below ``node``."""
    if isinstance(node, list):
        return [found for item in node for found in find_value(item, key)]
    if not isinstance(node, dict):
        return []
    return [value for name, value in node.items() if name == key] + [
        found for item in node.values() for found in find_value(item, key)
    ]


# Fields


def objects() -> list[tuple[str, dict[str, Any]]]:
    """Every Kubernetes object of the folder, with its file."""
    runs = {"score.yaml", "train.yaml", "search.yaml", "kustomization.yaml"}
    return [
        (path.name, one)
        for path in files(".yaml")
        if path.name not in runs
        for one in read(str(path.relative_to(KUBERNETES)))
    ]


def test_every_field_of_every_object_is_known_and_has_its_type() -> None:
    assert len(objects()) >= 13
    assert [fault for _, one in objects() for fault in find_faults(one)] == []


@pytest.mark.parametrize("name", BUILT)
def test_every_field_of_what_is_built_is_known_and_has_its_type(name: str) -> None:
    assert [fault for one in build(name) for fault in find_faults(one)] == []


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("spec", "rayversion"), "2.60.0", "RayCluster.spec.rayversion: unknown"),
        (
            ("spec", "enableInTreeAutoscaling"),
            "true",
            "RayCluster.spec.enableInTreeAutoscaling: expected bool, got 'true'",
        ),
        (
            ("spec", "headGroupSpec", "rayStartParams", "num-cpus"),
            0,
            "RayCluster.spec.headGroupSpec.rayStartParams: expected names with strings",
        ),
        (
            ("spec", "autoscalerOptions", "resources", "limits", "memory"),
            "1 GB",
            "RayCluster.spec.autoscalerOptions.resources.limits.memory: expected an amount, got '1 GB'",
        ),
    ],
)
def test_a_field_that_is_misspelt_or_of_another_type_is_found(path: tuple[str, ...], value: object, fault: str) -> None:
    document = read("base/raycluster.yaml")[0]
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    (found,) = find_faults(document)
    assert found.startswith(fault)


def test_every_yaml_and_json_of_infra_parses() -> None:
    infra = ROOT / "infra"
    found = [path for path in infra.rglob("*") if path.suffix in (".yaml", ".yml", ".json")]
    assert len(found) >= 25
    for path in found:
        assert list(yaml.safe_load_all(path.read_text())), path
        if path.suffix == ".json":
            json.loads(path.read_text())


def test_every_file_is_part_of_a_kustomization() -> None:
    named = set()
    for path in files("kustomization.yaml"):
        text = path.read_text()
        named |= {path.parent / word for word in re.findall(r"[\w-]+\.(?:yaml|json)", text)} | {path}
    assert set(files(".yaml")) | set(files(".json")) <= named


# Image and pods


@pytest.mark.parametrize("name", BUILT)
def test_one_image_name_stands_everywhere_and_never_latest(name: str) -> None:
    images = {container["image"] for container in containers(build(name))}
    components = read("components/image/kustomization.yaml")[0]["images"]
    assert images <= {f"{one['newName']}:{one['newTag']}" for one in components}
    assert len({image.rsplit(":", 1)[0] for image in images}) == 1
    assert not any(image.endswith(":latest") for image in images)


def test_the_images_are_the_targets_of_the_dockerfile_at_this_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    targets = re.findall(r"^FROM base AS (\w+)", (ROOT / "infra" / "Dockerfile").read_text(), re.MULTILINE)
    assert version is not None
    tags = {one["newTag"] for one in read("components/image/kustomization.yaml")[0]["images"]}
    assert tags == {f"{version[1]}-{target}" for target in targets}


@pytest.mark.parametrize("name", BUILT)
def test_no_container_runs_as_root_or_without_limits(name: str) -> None:
    found = containers(build(name))
    assert found
    for container in found:
        context = container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert set(container["resources"]["limits"]) >= {"cpu", "memory", "ephemeral-storage"}


@pytest.mark.parametrize("name", BUILT)
def test_every_mount_has_its_volume_and_every_configuration_is_made(name: str) -> None:
    made = {one["metadata"]["name"] for one in build(name) if one["kind"] == "ConfigMap"}
    for one in build(name):
        for pod in [spec for spec in find_value(one, "spec") if isinstance(spec, dict) and "containers" in spec]:
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            assert {mount["name"] for each in pod["containers"] for mount in each.get("volumeMounts", [])} <= volumes
        used = {ref["name"] for key in ("configMap", "configMapRef") for ref in find_value(one, key)}
        assert used <= made, one["metadata"]["name"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_pods_write_goes_to_a_volume_that_fits_their_limit(name: str) -> None:
    cluster = pick(build(f"overlays/{name}"), "RayCluster")["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        container = group["template"]["spec"]["containers"][0]
        (scratch,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "scratch"]
        assert {"name": "TMPDIR", "value": scratch} in container["env"]
        assert group["rayStartParams"]["object-spilling-directory"] == scratch
        (volume,) = [one for one in group["template"]["spec"]["volumes"] if one["name"] == "scratch"]
        size = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))
        assert size < int(container["resources"]["limits"]["ephemeral-storage"].removesuffix("Gi"))


# The cluster


def cluster() -> dict[str, Any]:
    spec: dict[str, Any] = read("base/raycluster.yaml")[0]["spec"]
    return spec


def test_the_cluster_runs_the_pinned_ray_and_refuses_strangers() -> None:
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster()["rayVersion"] == pinned[1]
    assert cluster()["authOptions"] == {"mode": "token"}


def test_workers_exist_only_while_a_job_asks_for_them() -> None:
    assert cluster()["enableInTreeAutoscaling"] is True
    assert cluster()["autoscalerOptions"]["version"] == "v2"  # what jobs.cluster.resources asks for
    groups = {group["groupName"]: group for group in cluster()["workerGroupSpecs"]}
    assert {name: group["minReplicas"] for name, group in groups.items()} == {"cpu": 0, "gpu": 0}
    assert all(group["maxReplicas"] > 0 for group in groups.values())


def test_only_the_gpu_group_has_gpus_and_tolerates_their_nodes() -> None:
    for group in cluster()["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        has_gpu = "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]
        assert has_gpu == (group["groupName"] == "gpu")
        assert has_gpu == any(one["key"] == "nvidia.com/gpu" for one in pod.get("tolerations", []))


def test_workers_have_no_key_to_kubernetes() -> None:
    pods = [group["template"]["spec"] for group in cluster()["workerGroupSpecs"]]
    assert all(pod["automountServiceAccountToken"] is False for pod in pods)


@pytest.mark.parametrize("name", ["aws", "gke"])
def test_workers_take_spot_nodes_and_the_head_does_not(name: str) -> None:
    spec = pick(build(f"overlays/{name}"), "RayCluster")["spec"]
    for group in spec["workerGroupSpecs"]:
        assert "spot" in json.dumps(group["template"]["spec"]["nodeSelector"])
    assert "spot" not in json.dumps(spec["headGroupSpec"]["template"]["spec"].get("nodeSelector", {}))


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_largest_cluster_has_room_for_every_scoring_actor_and_for_decoding(name: str) -> None:
    config = score_config(name)
    (group,) = [one for one in cluster()["workerGroupSpecs"] if one["groupName"] == "cpu"]
    cpus = group["maxReplicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert config.scoring.actors is not None
    assert config.scoring.actors < cpus


def test_the_head_s_state_can_be_kept_in_redis() -> None:
    patch = read("components/gcs-fault-tolerance/kustomization.yaml")[0]["patches"][0]
    (operation,) = yaml.safe_load(patch["patch"])
    document = read("base/raycluster.yaml")[0]
    document["spec"][operation["path"].removeprefix("/spec/")] = operation["value"]
    assert "gcsFaultToleranceOptions" in document["spec"]
    assert find_faults(document) == []


# Credentials


def test_aws_and_gke_bind_the_fleet_to_an_identity_of_the_cloud() -> None:
    aws = pick(build("overlays/aws"), "ServiceAccount", "fleet")["metadata"]["annotations"]
    gke = pick(build("overlays/gke"), "ServiceAccount", "fleet")["metadata"]["annotations"]
    assert re.fullmatch(r"arn:aws:iam::\d{12}:role/[\w-]+", aws["eks.amazonaws.com/role-arn"])
    assert re.fullmatch(r"[\w-]+@[\w-]+\.iam\.gserviceaccount\.com", gke["iam.gke.io/gcp-service-account"])


def test_on_prem_every_ray_pod_has_the_keys_and_the_endpoint_and_no_file_has_a_key() -> None:
    documents = build("overlays/minio-on-prem")
    storage = pick(documents, "ConfigMap", "storage")["data"]
    assert storage["AWS_ENDPOINT_URL"].startswith("http")
    for container in containers(pick(documents, "RayCluster")):
        assert {"configMapRef": {"name": "storage"}} in container["envFrom"]
        assert {"secretRef": {"name": "storage-keys"}} in container["envFrom"]
    assert not [one for one in documents if one["kind"] == "Secret"]


def test_every_ray_pod_has_the_key_of_the_registry_where_there_is_one() -> None:
    for container in containers(read("base/raycluster.yaml")[0]):
        (source,) = [one["valueFrom"] for one in container["env"] if one["name"] == KEY_VARIABLE]
        assert source == {"secretKeyRef": {"name": "signing", "key": "key", "optional": True}}


# The night


def nightly() -> dict[str, Any]:
    spec: dict[str, Any] = read("base/nightly.yaml")[0]["spec"]
    return spec


def night_container() -> dict[str, Any]:
    (found,) = containers(nightly())
    return found


def night_config(folder: Path | None = None) -> NightlyConfig:
    """The request of the CronJob; its file is taken from a folder here, that of the first overlay if none is given."""
    container = night_container()
    assert container["command"] == ["python", "-m", "jobs.nightly"]
    mounted = "/etc/attentdiffernet"
    here = str(folder or KUBERNETES / "overlays" / OVERLAYS[0])
    return parse_config(NightlyConfig, [word.replace(mounted, here) for word in container["args"]])


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_night_is_a_request_that_the_command_accepts(name: str) -> None:
    config = night_config(KUBERNETES / "overlays" / name)
    assert Path(config.score_config).is_file()
    assert config.run_id.startswith("nightly-")
    assert config.hours is not None


def test_the_night_asks_the_head_of_the_cluster_with_its_token() -> None:
    name = read("base/raycluster.yaml")[0]["metadata"]["name"]
    ports = {one["name"]: one["containerPort"] for one in containers(cluster()["headGroupSpec"])[0]["ports"]}
    assert night_config().head == f"http://{name}-head-svc:{ports['dashboard']}"
    variables = {one["name"]: one for one in night_container()["env"]}
    assert variables["RAY_AUTH_MODE"]["value"] == "token"
    assert variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": name, "key": "auth_token"}


def test_the_night_ends_in_order_before_kubernetes_ends_it_and_on_the_date_it_began() -> None:
    config, spec = night_config(), nightly()
    deadline = spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert config.hours is not None
    assert deadline > config.hours * 3600 + config.head_timeout_min * 60
    minute, hour = map(int, spec["schedule"].split()[:2])
    assert hour * 3600 + minute * 60 + spec["startingDeadlineSeconds"] + deadline < 24 * 3600
    assert spec["timeZone"] == "Etc/UTC"


def test_no_exit_code_of_the_night_makes_kubernetes_run_it_again() -> None:
    job = nightly()["jobTemplate"]["spec"]
    lost, answered = job["podFailurePolicy"]["rules"]
    assert (lost["action"], lost["onPodConditions"]) == ("Ignore", [{"type": "DisruptionTarget", "status": "True"}])
    assert answered["action"] == "FailJob"
    assert answered["onExitCodes"]["containerName"] == night_container()["name"]
    assert (answered["onExitCodes"]["operator"], set(answered["onExitCodes"]["values"])) == ("In", ANSWERS)
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # or Kubernetes refuses the policy
    assert nightly()["concurrencyPolicy"] == "Forbid"


def test_the_night_has_no_rights_but_to_talk_to_the_head() -> None:
    pod = nightly()["jobTemplate"]["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("client", False)
    assert "envFrom" not in night_container()


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_night_mounts_the_score_yaml_of_its_overlay(name: str) -> None:
    documents = build(f"overlays/{name}")
    (volume,) = [one for one in find_value(pick(documents, "CronJob"), "volumes")[0] if one["name"] == "config"]
    made = pick(documents, "ConfigMap", volume["configMap"]["name"])
    assert made["data"]["score.yaml"] == (KUBERNETES / "overlays" / name / "score.yaml").read_text()


# Configurations of the overlays


def score_config(name: str) -> ScoreConfig:
    path = KUBERNETES / "overlays" / name / "score.yaml"
    return parse_config(ScoreConfig, ["--config", str(path), "--run-id", "night"])


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("config_class", [ScoreConfig, TrainConfig, SearchConfig])
def test_every_configuration_of_an_overlay_parses_and_names_uris_alone(name: str, config_class: type[Any]) -> None:
    file = {ScoreConfig: "score", TrainConfig: "train", SearchConfig: "search"}[config_class]
    path = KUBERNETES / "overlays" / name / f"{file}.yaml"
    config = parse_config(
        config_class, ["--config", str(path), *(["--run-id", "n"] if config_class is ScoreConfig else [])]
    )
    given = yaml.safe_load(path.read_text())
    places = [given[field] for field in ("archive", "data", "detectors", "results") if field in given]
    scheme = "gs://" if name == "gke" else "s3://"
    assert places
    assert all(place.startswith(scheme) for place in places)
    if isinstance(config, SearchConfig):
        check_space(read_space(config))
    if isinstance(config, ScoreConfig):
        assert "run_id" not in given


# Jobs on the cluster


@pytest.mark.parametrize(("name", "config_class"), [("train", TrainConfig), ("search", SearchConfig)])
def test_a_job_s_entrypoint_is_a_complete_request(name: str, config_class: type[Any]) -> None:
    words = shlex.split(read(f"jobs/{name}/rayjob.yaml")[0]["spec"]["entrypoint"])
    assert words[:2] == ["python", "-m"]
    here = str(KUBERNETES / "overlays" / "aws")
    parse_config(config_class, [word.replace("/etc/attentdiffernet", here) for word in words[3:]])
    head = cluster()["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert "/etc/attentdiffernet" in {mount["mountPath"] for mount in head["volumeMounts"]}


@pytest.mark.parametrize("name", ["train", "search"])
def test_a_job_on_the_standing_cluster_has_only_fields_that_kuberay_takes_with_it(name: str) -> None:
    spec = read(f"jobs/{name}/rayjob.yaml")[0]["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": read("base/raycluster.yaml")[0]["metadata"]["name"]}
    assert not {"rayClusterSpec", "backoffLimit", "suspend", "shutdownAfterJobFinishes"} & set(spec)
    assert spec["submissionMode"] != "SidecarMode"
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"] == {
        "RAY_DATA_USE_DATASOURCE_V2": "0",
        "OMP_NUM_THREADS": "1",
    }


# Network


def test_only_labelled_clients_the_operator_and_prometheus_reach_the_cluster() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in read("base/network.yaml")}
    assert policies["fleet"]["ingress"] == [{"from": [{"podSelector": policies["fleet"]["podSelector"]}]}]
    (rule,) = policies["fleet-head"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [8265]
    labels = policies["client"]["podSelector"]["matchLabels"]
    assert {"podSelector": {"matchLabels": labels}} in rule["from"]
    (metrics,) = read("components/monitoring/network.yaml")[0]["spec"]["ingress"]
    assert [port["port"] for port in metrics["ports"]] == [8080]


def test_every_pod_that_submits_has_the_label_of_a_client() -> None:
    labels = {one["metadata"]["name"]: one["spec"] for one in read("base/network.yaml")}["client"]["podSelector"]
    submitters = [read(f"jobs/{name}/rayjob.yaml")[0]["spec"]["submitterPodTemplate"] for name in ("train", "search")]
    for template in (nightly()["jobTemplate"]["spec"]["template"], *submitters):
        assert template["metadata"]["labels"] == labels["matchLabels"]


# Metrics


def rules() -> list[dict[str, Any]]:
    (group,) = read("components/monitoring/alerts.yaml")[0]["spec"]["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((KUBERNETES / "components" / "monitoring" / "dashboard.json").read_text())
    return found


def expressions() -> list[str]:
    """Every PromQL expression of the alerts and the dashboard."""
    return [rule["expr"] for rule in rules()] + find_value(dashboard(), "expr")


def test_every_metric_that_is_asked_for_is_one_that_somebody_exports() -> None:
    used = {name for text in expressions() for name in re.findall(r"\b(?:ray|kube)_\w+", text)}
    assert used <= RAY_METRICS | KUBE_METRICS
    assert "ray_attentdiffernet_photos_total" in used


def test_every_status_that_is_asked_for_is_one_that_rows_have() -> None:
    found = {
        word for text in expressions() for part in re.findall(r'status=~?"([^"]+)"', text) for word in part.split("|")
    }
    assert found
    assert found <= {str(status) for status in Status}


def is_balanced(text: str) -> bool:
    """Whether brackets and quotes of a PromQL expression close what they open."""
    closing, open_ones = {")": "(", "]": "[", "}": "{"}, []
    for sign in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):
        if sign in closing.values():
            open_ones.append(sign)
        elif sign in closing and (not open_ones or open_ones.pop() != closing[sign]):
            return False
    return not open_ones and text.count('"') % 2 == 0


def test_the_brackets_and_quotes_of_every_expression_close() -> None:
    assert is_balanced('sum(rate(a{b="(c"}[5m]))')
    assert not is_balanced("sum(rate(a[5m])")
    assert not is_balanced('a{b="c}')
    assert [text for text in expressions() if not is_balanced(text)] == []


def test_somebody_is_told_of_a_failed_night_and_of_a_missing_one() -> None:
    alerts = {rule["alert"]: rule for rule in rules()}
    assert {"NightFailed", "NoNightSucceeded", "ManyPhotosUnreadable"} <= set(alerts)
    for rule in alerts.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description"} <= set(rule["annotations"])
    name = read("base/nightly.yaml")[0]["metadata"]["name"]
    assert f'cronjob="{name}"' in alerts["NoNightSucceeded"]["expr"]
    assert f'job_name=~"{name}-[0-9]+"' in alerts["NightFailed"]["expr"]


def test_the_alert_for_unreadable_photos_has_the_limits_of_the_run() -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == "ManyPhotosUnreadable"]
    config = score_config("aws")
    assert f"> {config.max_error_rate:g} *" in rule["expr"]
    assert f">= {config.min_alarm_rows}" in rule["expr"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_drift_fails_the_night_so_that_its_alert_tells_of_it(name: str) -> None:
    assert score_config(name).fail_on_drift
    assert score_config(name).report
    (rule,) = [rule for rule in rules() if rule["alert"] == "NightFailed"]
    assert "drift" in rule["annotations"]["description"]


def test_prometheus_scrapes_a_port_that_every_ray_pod_has() -> None:
    (endpoint,) = read("components/monitoring/podmonitor.yaml")[0]["spec"]["podMetricsEndpoints"]
    for container in containers(cluster()):
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
