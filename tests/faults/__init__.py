"""What may never happen, tried many times: crashes, hangs, messages that nobody can read."""
