"""The command line `jax-attention`: train, generate, evaluate, show, export, rules, explain, compare."""
