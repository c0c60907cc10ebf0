"""The inner loop (adaptation) and the outer loop (meta-gradients), for every learner."""
