"""The shapes that cross the house: the validated configuration and the result file."""
