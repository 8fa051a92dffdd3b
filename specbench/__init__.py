"""specbench measures speculative and parallel decoding under one ruler."""

__version__ = "0.1.0"
