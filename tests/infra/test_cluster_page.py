"""The commands of infra/docs/cluster.md name files, objects and tags that there are."""

from __future__ import annotations

import re
import shlex

import yaml

from tests.support.pages import shell_lines
from tests.support.places import ROOT

PAGE = ROOT / "infra" / "docs" / "cluster.md"
KUBERNETES = ROOT / "infra" / "kubernetes"


def lines(beginning: str) -> list[list[str]]:
    """The words of each command that begins so."""
    found = [shlex.split(line) for line in shell_lines(PAGE) if line.startswith(beginning)]
    assert found
    return found


def flag(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def objects() -> set[tuple[str, str]]:
    """Kind in lower case and name of every object of the base."""
    documents = [one for path in (KUBERNETES / "base").glob("*.yaml") for one in yaml.safe_load_all(path.read_text())]
    return {(one["kind"].lower(), one["metadata"]["name"]) for one in documents if "metadata" in one}


def test_every_folder_that_kubectl_is_given_is_a_kustomization() -> None:
    folders = {folder for words in lines("kubectl") if (folder := flag(words, "-k"))}
    assert folders >= {"infra/kubernetes/overlays/aws", "infra/kubernetes/jobs/train"}
    assert [folder for folder in folders if not (ROOT / folder / "kustomization.yaml").is_file()] == []


def test_every_object_that_kubectl_is_given_is_one_of_the_manifests_or_made_by_the_page() -> None:
    text = " ".join(line for line in shell_lines(PAGE) if line.startswith("kubectl"))
    named = set(re.findall(r"\b(raycluster|cronjob)/([\w-]+)", text))
    assert named
    assert named <= objects()
    assert {flag(words, "--namespace") for words in lines("kubectl")} - {None} == {
        name for kind, name in objects() if kind == "namespace"
    }


def test_the_secrets_that_the_page_makes_are_those_that_pods_read() -> None:
    made = {words[4] for words in lines("kubectl create secret")}
    texts = "".join(path.read_text() for path in KUBERNETES.rglob("*.yaml"))
    assert made == {"registry", "storage-keys", "signing"}
    assert all(re.search(rf"name: {name}\b", texts) for name in made)


def test_the_images_that_the_page_builds_are_those_that_kubernetes_runs() -> None:
    images = yaml.safe_load((KUBERNETES / "components" / "image" / "kustomization.yaml").read_text())["images"]
    assert {flag(words, "-t") for words in lines("docker build")} == {
        f"{one['newName']}:{one['newTag']}" for one in images
    }
    for words in lines("docker build"):
        assert str(flag(words, "-t")).endswith(f"-{flag(words, '--target')}")
        assert (ROOT / str(flag(words, "-f"))).is_file()


def test_the_page_names_every_overlay_and_every_alert_s_file() -> None:
    text = PAGE.read_text()
    assert all(f"`{path.name}`" in text for path in (KUBERNETES / "overlays").iterdir())
    assert all((ROOT / words[2]).is_file() for words in [*lines("ray up"), *lines("ray dashboard")])
