"""Binici et al. 2024: condensed images expanded by model inversion."""
