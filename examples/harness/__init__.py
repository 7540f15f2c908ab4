"""One training loop for all models, on Hugging Face accelerate."""
