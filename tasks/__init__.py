"""The registered SeqIO tasks and mixtures: `rt2_jax.tasks.mixtures` registers them all."""
