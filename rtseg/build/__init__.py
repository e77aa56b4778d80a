"""Making an engine from a recipe, checking its masks against the reference engine, and timing it."""
