"""Runs: output folders, the log of each run (run.json), and what it says of its origin."""
