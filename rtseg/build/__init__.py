"""Making an engine from a recipe, checking its masks against the reference's, timing it: `rtseg build`, `doctor`."""
