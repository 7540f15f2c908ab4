"""The front door of each op: docstring, checks, autograd.Function, public function."""
