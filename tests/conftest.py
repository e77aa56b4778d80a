"""Settings of every test."""

import os

# The networks here are small: a second thread gains nothing, and where another process wants the same cores, threads
# that wait for one another make a step 30 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
