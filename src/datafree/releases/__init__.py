"""Releases: the folders that are handed over, and how a network is loaded from one."""
