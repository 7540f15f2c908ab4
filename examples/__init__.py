"""Reference models on genkern: one file per model, one harness that trains them."""
