"""`python -m jobs.benchmark`: its sub-commands, their help, and small real measurements."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import benchmark
from jobs.cli import parse_config
from jobs.errors import RequestError
from model.config import DetectorConfig, FlowConfig
from model.presets import get_preset


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_without_a_name_the_benchmarks_are_listed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(argv) == 0
    shown = capsys.readouterr().out
    assert [name for name in benchmark.BENCHMARKS if f"  {name} " not in shown] == []


def test_an_unknown_benchmark_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(RequestError, match=r"expected one of network, .*, peers, got 'speed'; see --help"):
        benchmark.main(["speed"])


@pytest.mark.parametrize("name", benchmark.BENCHMARKS)
def test_every_benchmark_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        benchmark.main([name, "--help"])
    shown = capsys.readouterr().out
    assert f"python -m jobs.benchmark {name}" in shown
    assert "--output" in shown


@pytest.mark.parametrize("name", [name for name in benchmark.BENCHMARKS if name != "peers"])  # which needs anomalib
def test_every_benchmark_names_a_function(name: str) -> None:
    assert callable(pkgutil.resolve_name(benchmark.BENCHMARKS[name].measure))


def test_help_imports_neither_torch_nor_ray() -> None:
    look = (
        "import sys\n"
        "from jobs import benchmark\n"
        "benchmark.main([])\n"
        "sys.exit(not {'torch', 'ray'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", look], check=False, capture_output=True).returncode == 0


def test_lists_may_have_commas_on_the_command_line_and_in_yaml(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("memory_photos: [2, 4]")
    config_class = benchmark.BENCHMARKS["job"].config
    flags = parse_config(config_class, ["--memory-photos", "2,4"])
    assert flags == parse_config(config_class, ["--config", str(tmp_path / "job.yaml")])


SMALL_FLOW = FlowConfig(blocks=2, hidden_width=16, hidden_layers=1)


class SmallDetectorConfig(DetectorConfig):
    """A detector with a flow that takes milliseconds, not seconds."""

    flow: FlowConfig = SMALL_FLOW


@pytest.mark.slow
def test_scores_and_cost_are_compared_with_differnets_on_a_drawn_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.benchmarks.fidelity.DetectorConfig", SmallDetectorConfig)
    output = tmp_path / "fidelity.json"
    flags = ["--image-size=256", "--views=2", "--train-photos=4", "--test-photos=8", "--epochs=1"]
    assert benchmark.main(["fidelity", *flags, f"--output={output}"]) == 0
    found = json.loads(output.read_text())
    assert found["vs_differnet_cpu_ratio"] > 0
    assert found["spearman_vs_differnet"] > 0.9
    assert found["config"]["views"] == 2
    assert found["versions"]["torch"]


@pytest.mark.slow
def test_training_is_compared_with_differnets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = get_preset("differnet").model_copy(update={"flow": SMALL_FLOW})
    monkeypatch.setattr("jobs.benchmarks.training.get_preset", lambda _: small)
    output = tmp_path / "train.json"
    flags = ["--image-size=256", "--batch-photos=2", "--repeats=1", "--kept-epochs=2"]
    assert benchmark.main(["training", *flags, f"--output={output}"]) == 0
    found = json.loads(output.read_text())
    assert {"uniform_fp32_ratio", "scoring_bf16_ratio_without_conv_gradients"} <= set(found["metrics"])
    assert min(found["metrics"].values()) > 0


@pytest.mark.slow
def test_nights_are_timed_at_both_ends_of_a_history(tmp_path: Path) -> None:
    """In a process of its own, for it starts a Ray of its own."""
    output = tmp_path / "nights.json"
    flags = ["--nights=4", "--rows=300", "--measured=1", "--optimize-every=2", f"--output={output}"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.benchmark", "nights", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert len(found["nights"]) == 4
    assert found["night_growth"] > 0
    assert (found["files_after_first_night"], found["files_after_last_compaction"], found["most_files"]) == (1, 1, 3)
    assert [("compaction_s" in night) for night in found["nights"]] == [False, True, False, True]


@pytest.mark.slow
def test_places_are_timed_beside_scoring_without_them(tmp_path: Path) -> None:
    output = tmp_path / "places.json"
    assert benchmark.main(["places", "--archive-photos=8", "--repeats=1", f"--output={output}"]) == 0
    found = json.loads(output.read_text())
    assert found["places_cpu_ratio"] == pytest.approx(
        found["cpu_ms_with_places"] / found["cpu_ms_without_places"], rel=1e-6
    )


@pytest.mark.slow
def test_a_device_is_measured_against_its_own_limits(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    flags = ["--device=cpu", "--preset=gaussian_resnet18", "--precision=fp32", "--batch-photos=2", "--repeats=1"]
    assert benchmark.main(["gpu", *flags, "--gemm-side=64", "--copied-mib=1", f"--output={output}"]) == 0
    found = json.loads(output.read_text())
    assert found["views_per_s"] == pytest.approx(1000 / found["gpu_view_ms"])
    assert found["bf16_peak_fraction"] == pytest.approx(found["network_tflops"] / found["gemm_tflops"])
    assert min(value for name, value in found.items() if name.endswith(("_s", "_fraction"))) > 0


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RequestError, match="needed an NVIDIA GPU, torch sees none: run it on a GPU node"):
        benchmark.main(["gpu"])
