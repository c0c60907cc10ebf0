"""The contract of learners, and what agents share."""
