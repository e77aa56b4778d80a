"""The tracked frame with fixed shapes: the function of `rtseg.sam2`, rewritten so that nothing is computed twice.

engine.py     common to all engines with such a step: prompted or tracked frames, objects with and without memories
network.py    the step's four verbs: encoder.py, memory.py and mask.py, built from parts.py;
              match.py: comparison with the newest conditioning frame, in networks that have it
joined.py     the same in fewer and larger kernels, for a GPU; joined_encoder.py: its encoder
pooled.py     engines that keep the memories of their objects in one device buffer, pool.py
graph.py      capture and replay of a step as a CUDA graph

Every rewrite is exact (the same function, other rounding); tests/engine/test_static.py compares with the reference:

- Values that depend only on the weights are constants: position and rotation tables, the tokens of a frame without a
  prompt (up to the decoder's first self-attention), the projection of window padding.
- Successive linear maps are merged: neck and high-resolution convolutions; value and output projections of attention,
  so that the memory is attended to in its own M channels.
- A memory's keys are projected and rotated once, when it is written; a row for its temporal slot is added later.
- Values that depend on the image alone are computed once for all objects: the first self-attention over it and the
  projection that the memory encoder starts from.
- Rotated channel pairs lie half a row apart (the rows of the query and key projections are permuted), so rotating
  needs no shuffling.

Inside, maps are channels last; results of a verb have the shapes of `rtseg.sam2.values`. Products run in the type of
their weights, all else in the type of the activations; `StaticNetwork.precise` sets both.
"""
