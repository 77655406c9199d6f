"""The parts of `Client` and `AsyncClient`, one file a group of resources: each method twice, over the same call."""
