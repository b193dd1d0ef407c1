"""Speed and AUROC beside anomalib's detectors."""
