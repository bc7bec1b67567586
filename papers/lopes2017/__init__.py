"""Lopes, Fenu, Starner 2017: distillation from activation records."""
