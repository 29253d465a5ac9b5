"""Training a factorized model: batches, what is minimised, the loop, and its checkpoints."""
