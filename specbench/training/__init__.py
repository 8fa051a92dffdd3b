"""Training: the room of `specbench train`, and the recipes of the embedded models."""
