"""Reference models on genkern: one file per model, one harness that trains them.

To add a model: a class with the methods of `examples.model.GenerativeModel` in
``examples/<family>/<model>.py``, and its line in `examples.registry.MODELS`. Its keyword options
become ``--set NAME=VALUE`` on the command line. Nothing else needs an edit; the tests of
`tests/test_examples.py` that run over the registry want one line of small options.
"""
