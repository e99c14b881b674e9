"""`python -m analysis.published`: every figure, of the published tables; see `analysis.publishing.published`."""

import sys

from analysis.publishing.published import main

if __name__ == "__main__":
    sys.exit(main())
