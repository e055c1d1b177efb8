"""A trained student behind a page and an address for programs."""
