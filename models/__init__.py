"""Networks and what they minimise; they know nothing of data sets and YAML."""
