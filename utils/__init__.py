"""What every part needs and none owns; nothing here knows of CLIP, VisA or YAML."""
