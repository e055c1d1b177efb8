"""Networks and training objectives; they know nothing of data sets and YAML."""
