"""How the small CLIP of the demo is made."""
