"""Heads: trained weights that draft behind a target's hidden states, one file for a family."""
