"""Benchmarks, graders and statistics over seeds. A library that knows no service."""
