"""`python -m analysis.quotes`: the numbers of the tables, in README and docs; see `analysis.publishing.quotes`."""

import sys

from analysis.publishing.quotes import main

if __name__ == "__main__":
    sys.exit(main())
