"""Decoders whose round is not draft-verify."""
