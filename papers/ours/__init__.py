"""Binici et al. 2022: generative pseudo replay."""
