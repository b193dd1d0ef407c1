"""The image: its Dockerfile, the script of its steps, the pins, and the cluster that `ray up` starts with it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from tests.support.places import ROOT
from tests.support.scripts import check_bash

INFRA = ROOT / "infra"
SCRIPT = INFRA / "image-install.sh"
REQUIREMENTS = (ROOT / "requirements.txt").read_text()
CLUSTER_ADDRESS = re.compile(r"https?://(?:10(?:\.\d+){3}|[\w-]+|[\w-]+\.[\w-]+\.svc|127\.0\.0\.1):(?:\d+|\$\w+)")
"""A service inside the cluster, which is no web address."""


def dockerfile() -> str:
    """The Dockerfile, continued lines joined."""
    return re.sub(r"\\\n", " ", (INFRA / "Dockerfile").read_text())


def instructions(keyword: str, text: str = "") -> list[str]:
    """The arguments of every instruction ``keyword``."""
    lines = (text or dockerfile()).splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.startswith(f"{keyword} ")]


def stages() -> dict[str, str]:
    """Name of each stage -> its text, from FROM on."""
    parts = re.split(r"^(?=FROM )", dockerfile(), flags=re.MULTILINE)[1:]
    return {part.split()[3]: part for part in parts}


def copied() -> list[str]:
    """What the image takes from the checkout."""
    return [word for line in instructions("COPY") if not line.startswith("--from") for word in line.split()[:-1]]


def run_script(*arguments: str) -> str:
    done = subprocess.run([SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def pins(text: str) -> dict[str, str]:
    """Name of each package, with its marker if it has one -> its version and hashes."""
    found = re.findall(r"^([\w.-]+)==(\S+) ?(;.*?)? *\\\n((?:    --hash=.*\n?)*)", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^[\w.-]+(?:\[.*\])?==", text, re.MULTILINE))
    return {f"{name}{marker}": f"{version} {hashes}" for name, version, marker, hashes in found}


# Dockerfile


def test_the_image_copies_the_packages_and_only_what_exists() -> None:
    assert {"jobs", "model", "tuning"} <= set(copied())
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_the_build_context_holds_everything_that_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert kept == set(copied())


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_has_its_torch_the_package_and_no_root(target: str) -> None:
    stage = stages()[target]
    assert f"COPY --from=dependencies-{target} " in stage
    assert "COPY --from=package " in stage
    assert instructions("USER", stage) == ["1000"]
    assert f"dependencies {target} " in stages()[f"dependencies-{target}"]


def test_the_targets_begin_with_the_stage_that_has_the_user_and_runs_modules() -> None:
    assert all(stages()[target].startswith("FROM base ") for target in ("cpu", "gpu"))
    assert json.loads(instructions("ENTRYPOINT", stages()["base"])[0]) == ["python", "-m"]


def test_every_base_has_a_tag_and_no_step_adds_or_pipes() -> None:
    """What hadolint would say of the rules that matter here: DL3006, DL3007, DL3020, DL4006, DL3002, DL3004."""
    known = set(stages())
    bases = [line.split()[0] for line in instructions("FROM")]
    assert all(base in known or re.fullmatch(r"[\w/.-]+:(?!latest)[\w.-]+", base) for base in bases)
    assert instructions("ADD") == []
    assert not [line for line in instructions("RUN") if "|" in line or "sudo" in line or "curl" in line]


# Steps


def test_the_script_of_the_steps_is_right_bash() -> None:
    check_bash(SCRIPT)


def test_every_step_of_the_dockerfile_is_one_of_the_script() -> None:
    known = set(re.findall(r"^  ([a-z]+)\) ", SCRIPT.read_text(), re.MULTILINE))
    used = {
        words[1] for line in instructions("RUN") for words in [line.split()] if words[0].endswith("image-install.sh")
    }
    assert used == known - {"pins", "list"}
    assert len(used) == len(instructions("RUN")) - 1  # dependencies, for both targets


def test_the_script_says_its_steps_where_it_gets_none() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "image-install.sh pins cpu|gpu" in done.stderr


def test_the_gpu_image_has_the_pins_of_requirements_txt() -> None:
    assert run_script("pins", "gpu") == REQUIREMENTS


def test_the_cpu_image_has_the_same_versions_and_other_wheels_of_torch_alone() -> None:
    wanted, found = pins(REQUIREMENTS), pins(run_script("pins", "cpu"))
    assert found.keys() == wanted.keys()
    assert {name for name in wanted if found[name] != wanted[name]} == {"torch", "torchvision"}
    for name in ("torch", "torchvision"):
        assert found[name].split()[0] == f"{wanted[name].split()[0]}+cpu"


def test_every_pin_has_a_hash() -> None:
    texts = [run_script("pins", "cpu"), REQUIREMENTS, (INFRA / "requirements-uv.txt").read_text()]
    for found in map(pins, texts):
        assert found
        assert [name for name, rest in found.items() if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", rest)] == []


def test_the_script_refuses_another_target() -> None:
    done = subprocess.run([SCRIPT, "pins", "tpu"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "error: expected cpu or gpu, got tpu\n")


def test_the_image_has_what_every_command_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = set(re.findall(r"--extra (\w+)", SCRIPT.read_text()))
    assert {"report", "tracking"} <= installed <= set(project)
    assert not {"dev", "peers"} & installed


def test_the_image_is_built_with_the_uv_of_the_makefile() -> None:
    makefile = re.search(r"^UV_VERSION\s*=\s*(\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert makefile is not None
    assert pins((INFRA / "requirements-uv.txt").read_text())["uv"].split()[0] == makefile[1]


def test_no_file_names_a_web_address() -> None:
    files = [path for path in INFRA.rglob("*") if path.is_file() and path.suffix != ".png"]
    assert INFRA / "Dockerfile" in files
    texts = {path.name: CLUSTER_ADDRESS.sub("", path.read_text()) for path in files}
    assert [name for name, text in texts.items() if re.search(r"https?://", text)] == []


# ray up


def ray_up() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((INFRA / "ray-up-aws.yaml").read_text())
    return found


def test_ray_up_s_cluster_is_valid_by_ray_s_own_schema() -> None:
    schema = json.loads((ROOT.__class__(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(ray_up(), schema)
    with pytest.raises(jsonschema.ValidationError, match="max_worker'"):
        jsonschema.validate({**ray_up(), "max_worker": 3}, schema)


def test_ray_up_s_cluster_takes_the_images_of_kubernetes() -> None:
    component = yaml.safe_load((INFRA / "kubernetes" / "components" / "image" / "kustomization.yaml").read_text())
    images = {one["name"]: f"{one['newName']}:{one['newTag']}" for one in component["images"]}
    config = ray_up()
    assert config["docker"]["image"] == images["attentdiffernet-cpu"]
    assert config["available_node_types"]["gpu"]["docker"]["worker_image"] == images["attentdiffernet-gpu"]


def test_ray_up_s_workers_come_and_go_on_spot_nodes_and_the_head_stays() -> None:
    types = ray_up()["available_node_types"]
    head = types.pop(ray_up()["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert all(one["min_workers"] == 0 for one in types.values())
    assert all(one["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for one in types.values())
    assert sum(one["max_workers"] for one in types.values()) <= ray_up()["max_workers"]


def test_ray_up_s_cluster_wants_a_token_and_shows_its_dashboard_to_the_head_alone() -> None:
    assert "--env RAY_AUTH_MODE=token" in ray_up()["docker"]["run_options"]
    (start,) = [line for line in ray_up()["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host 127.0.0.1" in start
