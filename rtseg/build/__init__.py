"""`rtseg build` makes an engine from a recipe, checks it against the reference and times it; `rtseg doctor`."""
