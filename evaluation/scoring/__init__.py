"""Scores of outputs that people already have: one file a format. Rows in, rows and figures out, all plain JSON."""
