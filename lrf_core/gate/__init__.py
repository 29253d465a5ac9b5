"""What the gate measures of two models, and the questions it asks of that."""
