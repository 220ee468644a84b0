"""gin files for models, runs, data, topologies and serving, found as `rt2_jax.gin_configs`."""
