"""Job specifications and what turns them into cluster jobs, imported as `rt2_jax.launch`."""
