"""Trackers that people have already: one file each, imported only where the settings name it."""
