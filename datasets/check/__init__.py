"""Finds what is wrong with a data set before anything is trained on it; docs/check.md says how."""
