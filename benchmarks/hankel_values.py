"""Hankel singular values of a diagonal system: all digits, down to 1e-14 of the largest.

    python -m benchmarks.hankel_values [--quick] [--json OUT]

The same as ``lqo-mor bench --only hankel_values``.
"""

import sys

from lqo_mor.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--only", "hankel_values", *sys.argv[1:]]))
