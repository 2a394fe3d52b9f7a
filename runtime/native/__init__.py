"""Code that runs below Python, written in a subset of Python and compiled once per machine."""
