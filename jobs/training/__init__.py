"""Training: teacher, student and trained baselines."""
