"""Which channels and blocks of a network can be left out, and which are missed least."""
