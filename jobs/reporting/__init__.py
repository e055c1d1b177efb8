"""The page that test.py writes about a network."""
