"""Pictures of what a network looks at."""
