"""Reward models that other people trained, scored as their authors score them."""
