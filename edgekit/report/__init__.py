"""A package's verdicts for people."""
