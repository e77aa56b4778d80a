"""De-identification, measured and trained: `python -m bench.deidentify --data DATA`."""
