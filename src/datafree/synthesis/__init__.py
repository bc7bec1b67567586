"""Synthesis: images made from a network and its record; methods, losses, and sets on disk."""
