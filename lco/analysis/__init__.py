"""The paper's analyses as commands: `python -m lco.analysis.{dynamics,convexity,theory} OUT_DIR`."""
