"""Distillation: a student learns the outputs of its teacher, from stored images, fresh ones, or a generator."""
