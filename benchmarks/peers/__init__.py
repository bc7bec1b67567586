"""Data-free distillation methods of other groups, run from their own code with our teachers and students."""
