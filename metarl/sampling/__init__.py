"""Acting: whole episodes of many tasks, as tensors or as pictures."""
