"""Embedded models: procedural worlds, the tokenizer, and the shipped weights."""
