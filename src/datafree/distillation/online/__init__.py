"""Online distillation: a generator is trained against the student while the student learns."""
