"""Reference models on genkern: one file per model, one harness that trains them.

To add a model: a class with the methods of `examples.model.GenerativeModel` in
``examples/<family>/<model>.py``, and its entry in `examples.registry.MODELS`, which also holds the
options of a model small enough for the tests, and whether it wants labels. Its keyword options
become ``--set NAME=VALUE`` on the command line. Nothing else needs an edit: the tests run over the
registry, and `python -m examples table` adds its row to a page.
"""
