"""Embedded models: procedural worlds, the script that trains on them, and the shipped weights."""
