"""Calibration, p-values, AUROC, intervals."""
