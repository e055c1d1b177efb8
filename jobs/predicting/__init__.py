"""Verdicts on pictures without labels."""
