"""``python -m lqo_mor`` is the command line."""

import sys

from lqo_mor.cli.main import main

sys.exit(main())
