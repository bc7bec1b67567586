"""Binici et al. 2021: a memory bank against forgetting in data-free distillation."""
