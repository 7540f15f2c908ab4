"""`python -m examples demo`: every model trained on the digits, measured, and shown."""
