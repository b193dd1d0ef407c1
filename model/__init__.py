"""Pixels and scores: networks, images, training, calibration. Never imports ray, storage or pyarrow."""
