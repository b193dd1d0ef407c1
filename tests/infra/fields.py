"""The fields of Kubernetes' objects that infra/kubernetes may use, with their types; whatever is not here is a typo.

KubeRay 1.7 for ray.io/v1, Kubernetes 1.31 and the Prometheus operator for the rest. A dict maps names to types, a list
of one type is a list of such, MAP maps any name to a string, QUANTITY is an amount such as 500m or 8Gi.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

MAP = object()
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
NAMED = {"name": str}
META = {"name": str, "namespace": str, "labels": MAP, "annotations": MAP}
EXPRESSION = {"key": str, "operator": str, "values": [str]}
SELECTOR = {"matchLabels": MAP, "matchExpressions": [EXPRESSION]}
AMOUNTS = dict.fromkeys(("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"), QUANTITY)
RESOURCES = {"requests": AMOUNTS, "limits": AMOUNTS}
SECURITY = {
    "runAsNonRoot": bool,
    "runAsUser": int,
    "allowPrivilegeEscalation": bool,
    "readOnlyRootFilesystem": bool,
    "capabilities": {"drop": [str]},
    "seccompProfile": {"type": str},
}
KEY_REF = {"name": str, "key": str, "optional": bool}
SOURCE = {"secretKeyRef": KEY_REF, "configMapKeyRef": KEY_REF, "fieldRef": {"fieldPath": str}}
ENV = {"name": str, "value": str, "valueFrom": SOURCE}
REF = {"name": str, "optional": bool}
ENV_FROM = {"configMapRef": REF, "secretRef": REF}
MOUNT = {"name": str, "mountPath": str, "readOnly": bool, "subPath": str}
CONTAINER = {
    "name": str,
    "image": str,
    "imagePullPolicy": str,
    "command": [str],
    "args": [str],
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
    "env": [ENV],
    "envFrom": [ENV_FROM],
    "resources": RESOURCES,
    "securityContext": SECURITY,
    "volumeMounts": [MOUNT],
}
TOLERATION = {"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}
POD = {
    "serviceAccountName": str,
    "automountServiceAccountToken": bool,
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "priorityClassName": str,
    "nodeSelector": MAP,
    "tolerations": [TOLERATION],
    "imagePullSecrets": [NAMED],
    "initContainers": [CONTAINER],
    "containers": [CONTAINER],
    "volumes": [
        {
            "name": str,
            "emptyDir": {"sizeLimit": QUANTITY, "medium": str},
            "configMap": {"name": str, "optional": bool},
            "secret": {"secretName": str, "optional": bool},
        }
    ],
}
TEMPLATE = {"metadata": META, "spec": POD}
GROUP = {"rayStartParams": MAP, "template": TEMPLATE, "resources": MAP, "labels": MAP}
CREDENTIAL = {"value": str, "valueFrom": SOURCE}
CLUSTER = {
    "rayVersion": str,
    "suspend": bool,
    "upgradeStrategy": {"type": str},
    "authOptions": {"mode": str, "secretName": str, "enableK8sTokenAuth": bool},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": str,
        "idleTimeoutSeconds": int,
        "upscalingMode": str,
        "securityContext": SECURITY,
        "resources": RESOURCES,
        "env": [ENV],
        "envFrom": [ENV_FROM],
        "volumeMounts": [MOUNT],
    },
    "gcsFaultToleranceOptions": {
        "redisAddress": str,
        "redisUsername": CREDENTIAL,
        "redisPassword": CREDENTIAL,
        "externalStorageNamespace": str,
    },
    "headGroupSpec": {**GROUP, "serviceType": str, "enableIngress": bool},
    "workerGroupSpecs": [
        {
            **GROUP,
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "idleTimeoutSeconds": int,
            "numOfHosts": int,
        }
    ],
}
RAY_JOB = {
    "entrypoint": str,
    "clusterSelector": MAP,
    "rayClusterSpec": CLUSTER,
    "submissionMode": str,
    "submitterConfig": {"backoffLimit": int},
    "submitterPodTemplate": TEMPLATE,
    "activeDeadlineSeconds": int,
    "preRunningDeadlineSeconds": int,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "runtimeEnvYAML": str,
    "metadata": MAP,
    "jobId": str,
    "suspend": bool,
}
POD_FAILURE_RULE = {
    "action": str,
    "onExitCodes": {"containerName": str, "operator": str, "values": [int]},
    "onPodConditions": [{"type": str, "status": str}],
}
JOB = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "ttlSecondsAfterFinished": int,
    "completions": int,
    "parallelism": int,
    "podFailurePolicy": {"rules": [POD_FAILURE_RULE]},
    "template": TEMPLATE,
}
CRON_JOB = {
    "schedule": str,
    "timeZone": str,
    "concurrencyPolicy": str,
    "startingDeadlineSeconds": int,
    "successfulJobsHistoryLimit": int,
    "failedJobsHistoryLimit": int,
    "suspend": bool,
    "jobTemplate": {"metadata": META, "spec": JOB},
}
PEER = {"podSelector": SELECTOR, "namespaceSelector": SELECTOR, "ipBlock": {"cidr": str, "except": [str]}}
PORT = {"port": int, "protocol": str, "endPort": int}
NETWORK = {
    "podSelector": SELECTOR,
    "policyTypes": [str],
    "ingress": [{"from": [PEER], "ports": [PORT]}],
    "egress": [{"to": [PEER], "ports": [PORT]}],
}
POD_MONITOR = {
    "selector": SELECTOR,
    "podMetricsEndpoints": [{"port": str, "interval": str, "path": str}],
}
RULES = {
    "groups": [
        {
            "name": str,
            "interval": str,
            "rules": [
                {"alert": str, "record": str, "expr": str, "for": str, "labels": MAP, "annotations": MAP},
            ],
        }
    ]
}
KINDS: dict[tuple[str, str], dict[str, Any]] = {
    ("ray.io/v1", "RayCluster"): {"spec": CLUSTER},
    ("ray.io/v1", "RayJob"): {"spec": RAY_JOB},
    ("batch/v1", "CronJob"): {"spec": CRON_JOB},
    ("v1", "Namespace"): {},
    ("v1", "ServiceAccount"): {"automountServiceAccountToken": bool, "imagePullSecrets": [NAMED]},
    ("v1", "ConfigMap"): {"data": MAP},
    ("networking.k8s.io/v1", "NetworkPolicy"): {"spec": NETWORK},
    ("monitoring.coreos.com/v1", "PodMonitor"): {"spec": POD_MONITOR},
    ("monitoring.coreos.com/v1", "PrometheusRule"): {"spec": RULES},
}


def find_faults(document: dict[str, Any]) -> list[str]:
    """'PATH: what is wrong' for each field of an object that is unknown or has another type."""
    kind = (document.get("apiVersion", ""), document.get("kind", ""))
    if kind not in KINDS:
        return [f"{kind}: unknown"]
    return list(_compare(document, {"apiVersion": str, "kind": str, "metadata": META, **KINDS[kind]}, kind[1]))


def _compare(value: object, expected: Any, path: str) -> Iterator[str]:
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            yield f"{path}: expected fields, got {value!r}"
            return
        for name, part in value.items():
            if name in expected:
                yield from _compare(part, expected[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}: unknown"
    elif isinstance(expected, list):
        if not isinstance(value, list):
            yield f"{path}: expected a list, got {value!r}"
            return
        for number, part in enumerate(value):
            yield from _compare(part, expected[0], f"{path}[{number}]")
    elif expected is MAP:
        if not isinstance(value, dict) or not all(isinstance(part, str) for part in value.values()):
            yield f"{path}: expected names with strings, got {value!r}"
    elif isinstance(expected, re.Pattern):
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not expected.fullmatch(str(value)):
            yield f"{path}: expected an amount, got {value!r}"
    elif type(value) is not expected:
        yield f"{path}: expected {expected.__name__}, got {value!r}"
