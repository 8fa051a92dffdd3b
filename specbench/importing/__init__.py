"""Published raw outputs to result files, so that others' numbers can be compared under one ruler.

A reader for each format translates what its authors wrote into records; the records become rows
of the result schema. What a source does not record stays null and is said; what is odd in it is
read as its authors meant it and reported. This room measures nothing and knows no models.
"""

from specbench.importing.formats import AUTO, FORMATS, read_source
from specbench.importing.results import Imported, Stated, plan, write

__all__ = ["AUTO", "FORMATS", "Imported", "Stated", "plan", "read_source", "write"]
