"""The front door of each op: one `Family`, checks, public functions and their docstrings."""
