"""Few-shot learning on the same inner and outer loop."""
