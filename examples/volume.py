"""A CT or MR volume, from a box on one slice, which is followed to the last slice and to the first: MedSAM2's way.

python examples/volume.py lesion.npz 8 210,180,260,230 masks.npz engines/medsam2.toml
"""

import sys

import numpy as np

import rtseg

volume, start, out, recipe = sys.argv[1], int(sys.argv[2]), sys.argv[4], sys.argv[5]
box = [float(number) for number in sys.argv[3].split(",")]  # x0, y0, x1, y1

slices_dhw = np.load(volume)["imgs"]  # uint8 [D, H, W]: the scanner's values in a window, as MedSAM2's data has them
masks_dhw = np.zeros(slices_dhw.shape, np.uint8)
try:
    engine = rtseg.open_engine(recipe)
    for way in (range(start, len(slices_dhw)), range(start, -1, -1)):
        tracker = rtseg.Tracker(engine)
        tracker.cuts = False  # slices are no video
        tracker.prompt(1, box=box)
        for number in way:
            picture_hwc = np.repeat(slices_dhw[number, ..., None], 3, axis=2)
            masks_dhw[number] = tracker.step(picture_hwc).mask(1)
except rtseg.RtsegError as error:  # one line: what was wrong, and what to do
    sys.exit(str(error))
np.savez_compressed(out, segs=masks_dhw)
print(f"{out}: {int(masks_dhw.any((1, 2)).sum())} of {len(masks_dhw)} slices, {int(masks_dhw.sum())} voxels")
