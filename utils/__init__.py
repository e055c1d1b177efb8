"""What several parts use; it knows nothing of CLIP, VisA and YAML."""
