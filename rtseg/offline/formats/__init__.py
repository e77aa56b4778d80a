"""Other programs' file formats, made from the folder that `rtseg segment` wrote.

A result is read frame by frame (`segmented_video.py`), so a recording of hours takes no more memory than a short one.
"""
