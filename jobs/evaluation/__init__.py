"""AUROC, AUPR and recall on labelled photos; comparison of variants."""
