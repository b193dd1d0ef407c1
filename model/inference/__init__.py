"""Detectors made ready to score: weights that no longer change, in the fastest form that the machine has."""

import sys

# On import OpenVINO reports its use over the network, unless the package that does so is missing. A scoring cluster
# reports nothing to anybody.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # what Python writes for a missing module
