"""The report for people: one self-contained page that is read from top to bottom.

Result files are gathered into a `Content`, which a template turns into HTML. The charts are
inline SVG, and everything is readable without the script, which only sorts, filters and steps.
"""

from specbench.report.html.content import Content, gather
from specbench.report.html.page import render

__all__ = ["Content", "gather", "render"]
