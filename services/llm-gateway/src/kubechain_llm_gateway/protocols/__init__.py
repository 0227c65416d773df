"""Our conversation in the two wire protocols, there and back: pure functions over plain JSON values."""
