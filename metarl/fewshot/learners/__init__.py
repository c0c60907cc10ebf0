"""Few-shot learners, a file each."""
