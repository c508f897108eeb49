"""The shipped configurations, one commented YAML file a run."""
