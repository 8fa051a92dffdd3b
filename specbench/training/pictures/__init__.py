"""The embedded models that draw and judge pictures."""
