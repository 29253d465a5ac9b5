"""Candidates, scored into a design space, and the allocation of one choice per layer."""
