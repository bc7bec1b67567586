"""Releases: the folders that a publisher shares, and how a network is loaded from one."""
