"""How cases are measured, kept and shown."""
