"""The tracked frame with fixed shapes: the function of `rtseg.sam2`, rewritten so that nothing is done twice.

engine.py     what every engine with such a step does alike: prompted or tracked, objects with and without memories
network.py    the step's four verbs: encoder.py, memory.py, mask.py, of the parts in parts.py
joined.py     the same in fewer and larger kernels, for a GPU; joined_encoder.py: its encoder
pooled.py     engines that keep the memories of their objects in one device buffer, pool.py
graph.py      capture and replay of a step as a CUDA graph

Every rewrite is exact (the same function, other roundings); tests/engine/test_static.py holds them to the reference:

- What depends on the weights alone is a constant: position and rotation tables, the tokens of a frame without a
  prompt (through the decoder's first self-attention), what window padding becomes.
- Linear maps in a row are one: neck and high-resolution convolutions; value and output projections of attention,
  so that the memory is attended to in its own M channels.
- A memory's keys are projected and rotated once, when it is written; a row for its temporal slot is added later.
- What depends on the image alone is done once for all objects: the first self-attention over the image, and the
  projection that the memory encoder starts from.
- Rotated channel pairs lie half a row apart (the rows of the query and key projections are permuted), so rotating
  needs no shuffling.

Maps are channels last inside; a verb's answers have the shapes of `rtseg.sam2.values`. Products run in the type of
their weights, all else in the type of the activations: `StaticNetwork.precise` sets both.
"""
