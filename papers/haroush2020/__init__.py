"""Haroush et al. 2020: synthetic samples for quantization, and data similarity."""
