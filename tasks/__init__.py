"""The registered SeqIO tasks and mixtures, imported as `rt2_jax.tasks`."""
