"""What masks are worth, beside the truth: one file for each kind of figure, with the definition that it keeps.

| file | figures | defined by |
|---|---|---|
| `overlap` | Dice, IoU (J of DAVIS) | areas |
| `boundary` | F | DAVIS 2017 |
| `surface` | HD95, normalised surface Dice | MONAI's surfaces, distances and percentile |
| `instruments` | challenge IoU, ISI-IoU, mcIoU | EndoVis 2017, ISINet |
| `presence` | what is drawn while an object is absent, and how soon it is found again | here |

The first three judge one mask on one frame, the other two the rows of an evaluation.
"""
