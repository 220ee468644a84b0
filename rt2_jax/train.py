"""`python -m rt2_jax.train`: the same as `rt2 train`, under the name that T5X's users expect."""

import sys

from rt2_jax.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    sys.exit(main())
