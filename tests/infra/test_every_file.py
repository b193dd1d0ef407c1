"""Every YAML and JSON of infra/ is read strictly here, and is of a kind whose fields a test knows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.places import ROOT

VALIDATED = {
    "infra/kubernetes/": "tests/infra/test_kubernetes.py",
    "infra/runs/": "tests/infra/test_runs.py",
    "infra/iam/": "tests/infra/test_every_file.py",
    "infra/ray-up-aws.yaml": "tests/infra/test_image.py",
}
"""Beginning of a path -> the tests that know the fields."""
ACTIONS = {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}


def list_files(*suffixes: str) -> list[str]:
    """Files of infra/ that git tracks or would track, in the checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "infra"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    return [name for name in found if name.endswith(suffixes) and (ROOT / name).is_file()]


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len({str(key) for key in keys}), f"{node.start_mark}: a key stands twice in {keys}"
        return super().construct_mapping(node, deep=deep)


def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"a key stands twice in {names}"
    return dict(pairs)


@pytest.mark.parametrize("name", list_files(".yaml", ".yml"))
def test_a_yaml_file_has_content_and_no_key_twice(name: str) -> None:
    assert any(yaml.load_all((ROOT / name).read_text(), StrictLoader))


@pytest.mark.parametrize("name", list_files(".json"))
def test_a_json_file_has_content_and_no_key_twice(name: str) -> None:
    assert json.loads((ROOT / name).read_text(), object_pairs_hook=read_object)


def test_a_key_that_stands_twice_is_found() -> None:
    with pytest.raises(AssertionError, match=r"a key stands twice in \['a', 'a'\]"):
        yaml.load("a: 1\na: 2\n", StrictLoader)


def test_every_yaml_and_json_is_of_a_kind_whose_fields_are_tested() -> None:
    unknown = [name for name in list_files(".yaml", ".yml", ".json") if not name.startswith(tuple(VALIDATED))]
    assert unknown == []
    assert [test for test in VALIDATED.values() if not (ROOT / test).is_file()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "infra" / "iam").iterdir()), ids=lambda path: path.stem)
def test_a_policy_allows_known_actions_on_the_places_that_they_are_for(path: Path) -> None:
    policy = json.loads(path.read_text())
    assert set(policy) == {"Version", "Statement"}
    assert policy["Version"] == "2012-10-17"
    names = [statement["Sid"] for statement in policy["Statement"]]
    assert len(names) == len(set(names))
    for statement in policy["Statement"]:
        assert set(statement) == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        assert set(statement["Action"]) <= ACTIONS
        resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        assert all(resource.startswith("arn:aws:s3:::inspection-") for resource in resources)
        on_bucket = any("/" not in resource for resource in resources)
        # A right to list is one on the bucket, all others are on its objects; Ceph asks for deleting on the bucket too.
        assert on_bucket == (statement["Action"] == ["s3:ListBucket"] or "s3:DeleteObject" in statement["Action"])
