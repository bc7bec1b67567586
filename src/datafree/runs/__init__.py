"""Runs: output folders, the log of each run (run.json), and the origin that it states."""
