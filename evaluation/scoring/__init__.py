"""Outputs that exist already, scored: one file a kind. Plain JSON in, plain JSON out."""
