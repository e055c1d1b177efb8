"""What the commands do: train, test, compare, check, visualize."""
