"""`python -m analysis.dashboard`: the W&B workspace as code; see `analysis.publishing.dashboard`."""

import sys

from analysis.publishing.dashboard import main

if __name__ == "__main__":
    sys.exit(main())
