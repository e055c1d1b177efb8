"""Images and their labels, captions and masks; batches of them."""
