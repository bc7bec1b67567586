"""Models: networks, their input specification, hooks on their layers, and the papers' architectures."""
