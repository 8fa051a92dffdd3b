"""Training: loops, data and recipes. No run needs them, and the wheel leaves them out."""
