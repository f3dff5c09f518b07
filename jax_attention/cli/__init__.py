"""The command line `jax-attention`: train, generate, evaluate, show, rules, explain."""
