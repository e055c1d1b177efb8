"""Comparing methods on one list of test images."""
