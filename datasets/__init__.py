"""Images, what is known about them, and the batches they travel in."""
