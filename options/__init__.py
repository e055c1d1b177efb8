"""From YAML to objects, and the jobs that are done with them."""
