"""Records: what a publisher measures of a network's activations on its data."""
