"""Figures of masks against the truth: one file for each kind of figure, with its definition.

| file | figures | defined by |
|---|---|---|
| `overlap` | Dice, IoU (J of DAVIS) | areas |
| `boundary` | F | DAVIS 2017 |
| `surface` | HD95, normalised surface Dice | MONAI's surfaces, distances and percentile |
| `instruments` | challenge IoU, ISI-IoU, mcIoU | EndoVis 2017, ISINet |
| `presence` | masks drawn while an object is absent, and how soon it is found again | here |

The first three are for one mask on one frame, the other two for the rows of an evaluation.
"""
