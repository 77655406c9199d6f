"""Logits Convex Optimization (arXiv 2603.00963): sample, estimate, aim, fit. A library that knows no service."""
