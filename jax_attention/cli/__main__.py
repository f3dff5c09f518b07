"""`python -m jax_attention.cli` is `jax-attention`."""

import sys

from jax_attention.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
