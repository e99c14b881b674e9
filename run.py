"""Measure sparse attention: one job, or a sweep of jobs.

python run.py                                     # the Gaussian source, default windows
python run.py experiment=quick                    # a preset; presets sweep by themselves
python run.py -m source.s=0.3,0.5,0.8 seed=0,1    # a sweep from the command line
python run.py source=smollm2 plan=true            # what would be measured, and at what cost
"""

import sys

from experiments.command.interrupts import end_on_ctrl_c

if __name__ == "__main__":
    end_on_ctrl_c()

from experiments.launch import main

if __name__ == "__main__":
    sys.exit(main())
