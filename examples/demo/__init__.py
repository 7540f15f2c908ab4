"""`python -m examples demo`: four models trained on the digits, measured, and shown."""
