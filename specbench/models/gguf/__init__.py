"""GGUF files: read in bounded time, and converted once to the layout of published checkpoints."""
