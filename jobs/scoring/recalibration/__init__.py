"""A new calibration of a registered detector, whose weights stay."""
