"""A whole forward of few tokens in one call of compiled code, for models on a CPU."""
