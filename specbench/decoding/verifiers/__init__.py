"""Verifiers decide which drafted tokens the target keeps, and what follows them."""
