"""Memory of a compiled plan: tables, and the elements of weights and constants."""

import numpy as np
import torch


class Tables:
    """Arrays one after the other; equal ones once."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.known: dict[bytes, int] = {}
        self.size = 0

    def add(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array, np.int32).ravel()
        key = array.tobytes()
        if key not in self.known:
            self.known[key] = self.size
            self.parts.append(array)
            self.size += len(array)
        return self.known[key]

    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([*self.parts, np.zeros(1, np.int32)]))


class Values:
    """Elements of tensors one after the other."""

    def __init__(self, like: torch.Tensor) -> None:
        self.like, self.size = like, 1
        self.tensors, self.columns = [like.new_zeros(1)], [1]

    def add(self, *columns: torch.Tensor) -> int:
        """Of a tensor, or of one whose last dim several have side by side."""
        at = self.size
        self.tensors += [tensor.detach().to(self.like) for tensor in columns]
        self.columns.append(len(columns))
        self.size += sum(tensor.numel() for tensor in columns)
        return at

    def tensor(self) -> torch.Tensor:
        """All elements, where each tensor stands for itself."""
        return torch.cat([tensor.reshape(-1) for tensor in self.tensors])
