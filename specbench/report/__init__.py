"""A Comparison as a terminal table, Markdown, CSV or JSON: pure functions, one file a form.

Tables for people round and leave out; `csv` and `json` give everything at full precision.
"""
