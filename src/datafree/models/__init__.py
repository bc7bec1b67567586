"""Models: networks, their input specification, where they can be watched, and the papers' architectures."""
