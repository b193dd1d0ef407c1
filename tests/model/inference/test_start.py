"""What a scoring process imports before its first photo, which each process of a run pays for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from model.artifact import save_artifact
from model.detector import AttentDifferNet
from model.statistics.calibration import Calibration
from tests.support.training import build_training_config

LOAD = """
import sys
from model.artifact import load_artifact
from model.inference.detector import CompiledDetector

CompiledDetector(load_artifact(sys.argv[1]).detector)
print(*sorted({"torch._dynamo", "torch.distributed.tensor", "sympy", "torchvision"} & set(sys.modules)))
"""


def test_a_detector_on_alexnet_is_ready_to_score_without_torch_s_compiler(tmp_path: Path) -> None:
    """It takes 1 to 2 s of CPU to import, and one call that needs it is enough: torch.eye on the meta device did."""
    detector = AttentDifferNet(build_training_config(feature_scaling="whiten")).eval()
    save_artifact(tmp_path / "artifact", detector, calibration=Calibration(scores=(0.0, 1.0)), metrics={})
    command = [sys.executable, "-c", LOAD, str(tmp_path / "artifact")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
